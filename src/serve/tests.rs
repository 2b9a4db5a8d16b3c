//! A server on a port of its own, asked by hand.

use std::io::{Read, Write};

use super::*;
use crate::tree::Digest;

const CONTENT: &[u8] = b"0123456789abcdefghij";

struct Site {
    folder: tempfile::TempDir,
    address: SocketAddr,
}

/// Serves a folder until the test program ends.
fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join("out").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("disk.iso", CONTENT);
    write("empty.img", b"");
    write("a b&<c>.img", b"odd");
    write(".hidden", b"secret");
    write("site.seed/openstack/latest/user_data", b"#cloud-config\n");
    write("site.seed/openstack/latest/meta_data.json", br#"{"uuid": "u", "hostname": "h"}"#);
    write("site.seed/openstack/latest/network_data.json", br#"{"links": [], "networks": []}"#);
    std::fs::write(folder.path().join("outside"), b"outside").unwrap();
    std::os::unix::fs::symlink("../outside", folder.path().join("out/escape")).unwrap();
    std::os::unix::fs::symlink("/etc", folder.path().join("out/etc")).unwrap();
    let server = Server::bind(&folder.path().join("out"), "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.address().unwrap();
    std::thread::spawn(move || server.run(&Reporter::quiet()));
    Site { folder, address }
}

/// Status, head and content of what comes back for some bytes.
fn raw(address: SocketAddr, request: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    split(&answer)
}

fn split(answer: &[u8]) -> (u16, String, Vec<u8>) {
    let end = memchr::memmem::find(answer, b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head[9..12].parse().unwrap(), head, answer[end..].to_vec())
}

fn ask(site: &Site, method: &str, path: &str, fields: &str) -> (u16, String, Vec<u8>) {
    raw(site.address, format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n").as_bytes())
}

#[test]
fn files_and_parts_of_them() {
    let site = site();
    let tag = format!("\"{}\"", Digest::of(CONTENT));
    let (status, head, content) = ask(&site, "GET", "/disk.iso", "");
    assert_eq!((status, content.as_slice()), (200, CONTENT));
    assert!(head.contains(&format!("ETag: {tag}\r\n")) && head.contains("Accept-Ranges: bytes\r\n"), "{head}");
    let (status, head, content) = ask(&site, "HEAD", "/disk.iso", "Range: bytes=1-2\r\n");
    assert_eq!((status, content.len()), (200, 0));
    assert!(head.contains("Content-Length: 20\r\n"), "{head}");
    for (range, status, part, place) in [
        ("bytes=0-3", 206, "0123", "bytes 0-3/20"),
        ("bytes=18-", 206, "ij", "bytes 18-19/20"),
        ("bytes=-3", 206, "hij", "bytes 17-19/20"),
        ("bytes=-99", 206, "0123456789abcdefghij", "bytes 0-19/20"),
        ("bytes=5-99999999999999999999999", 206, "56789abcdefghij", "bytes 5-19/20"),
        ("bytes=20-", 416, "", "bytes */20"),
        ("bytes=-0", 416, "", "bytes */20"),
        ("bytes=3-2", 200, "0123456789abcdefghij", ""),
        ("bytes=0-1,4-5", 200, "0123456789abcdefghij", ""),
        ("lines=0-1", 200, "0123456789abcdefghij", ""),
        ("bytes=+1-2", 200, "0123456789abcdefghij", ""),
    ] {
        let (found, head, content) = ask(&site, "GET", "/disk.iso", &format!("Range: {range}\r\n"));
        assert_eq!((found, String::from_utf8_lossy(&content).as_ref()), (status, part), "{range}");
        assert!(place.is_empty() || head.contains(&format!("Content-Range: {place}\r\n")), "{range}: {head}");
    }
    let part = |condition: &str| ask(&site, "GET", "/disk.iso", &format!("Range: bytes=0-0\r\n{condition}\r\n")).0;
    assert_eq!(part(&format!("If-Range: {tag}")), 206);
    assert_eq!(part("If-Range: \"other\""), 200);
    assert_eq!(part("If-Range: Sat, 21 Nov 2026 00:00:00 GMT"), 200);
    let (status, _, content) = ask(&site, "GET", "/disk.iso", &format!("If-None-Match: \"x\", W/{tag}\r\n"));
    assert_eq!((status, content.len()), (304, 0));
    assert_eq!(ask(&site, "GET", "/empty.img", "Range: bytes=0-0\r\n").0, 416);
    // The tag follows the file.
    std::fs::write(site.folder.path().join("out/disk.iso"), b"new").unwrap();
    assert!(ask(&site, "GET", "/disk.iso", "").1.contains(&Digest::of(b"new").to_hex()));
}

#[test]
fn nothing_outside_the_folder() {
    let site = site();
    for path in [
        "/../outside",
        "/%2e%2e/outside",
        "/escape",
        "/etc/passwd",
        "/etc",
        "/.hidden",
        "/x/../../outside",
        "/%00",
        "/site.seed/%2e%2e/%2e%2e/outside",
        "/..%2foutside",
        "outside",
        "*",
        "/%zz",
        "http://x/../outside",
    ] {
        let (status, _, content) = ask(&site, "GET", path, "");
        assert!([400, 404].contains(&status), "{path}: {status}");
        assert!(!content.ends_with(b"outside") && !content.ends_with(b"secret"), "{path}");
    }
}

#[test]
fn folders_have_pages() {
    let site = site();
    let (status, head, content) = ask(&site, "GET", "/", "");
    let text = String::from_utf8(content).unwrap();
    assert_eq!(status, 200);
    assert!(head.contains("text/html"), "{head}");
    assert!(text.contains("<a href=\"./a%20b%26%3Cc%3E.img\">a b&amp;&lt;c&gt;.img</a>"), "{text}");
    assert!(text.contains("<a href=\"./site.seed/\">site.seed/</a>"), "{text}");
    for hidden in [".hidden", "escape", "etc", "outside"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
    let (status, head, _) = ask(&site, "GET", "/site.seed", "");
    assert_eq!(status, 301);
    assert!(head.contains("Location: /site.seed/\r\n"), "{head}");
    assert_eq!(ask(&site, "GET", "/a%20b%26%3Cc%3E.img?x=y", "").2, b"odd");
}

#[test]
fn seeds_have_both_forms() {
    let site = site();
    let get = |path: &str| {
        let (status, _, content) = ask(&site, "GET", path, "");
        (status, String::from_utf8(content).unwrap())
    };
    assert_eq!(get("/site.seed/openstack/latest/user_data").1, "#cloud-config\n");
    assert_eq!(get("/site.seed/user-data"), (200, "#cloud-config\n".into()));
    assert_eq!(get("/site.seed/vendor-data"), (200, String::new()));
    assert!(get("/site.seed/meta-data").1.contains("\"instance-id\": \"u\""));
    assert!(get("/site.seed/network-config").1.contains("\"version\": 2"));
    assert_eq!(get("/user-data").0, 404);
    assert_eq!(get("/vendor-data").0, 404);
}

#[test]
fn netboot_sets_have_a_script_with_our_address() {
    let site = site();
    let get = |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let (status, _, content) = raw(site.address, request.as_bytes());
        (status, String::from_utf8(content).unwrap())
    };
    assert_eq!(get("/boot.ipxe", "boot:80").0, 404, "there is none yet");
    let write = |name: &str| std::fs::write(site.folder.path().join("out").join(name), "#!ipxe\n").unwrap();
    write("a.ipxe");
    let script = "#!ipxe\nset base-url http://boot:80\nchain ${base-url}/a.ipxe\n";
    assert_eq!(get("/boot.ipxe", "boot:80"), (200, script.into()));
    assert_eq!(get("/boot.ipxe", "evil\u{b}chain").0, 404);
    write("b.ipxe");
    let script = get("/boot.ipxe", "boot").1;
    assert!(script.contains("item set1 b\n") && script.contains(":set1\nchain ${base-url}/b.ipxe\n"), "{script}");
    write("boot.ipxe");
    assert_eq!(get("/boot.ipxe", "boot").1, "#!ipxe\n");
}

#[test]
fn what_is_no_request_is_refused() {
    let site = site();
    let status = |request: &str| raw(site.address, request.as_bytes()).0;
    assert_eq!(status("POST / HTTP/1.1\r\nConnection: close\r\n\r\n"), 405);
    assert_eq!(status("GET /\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/9.9\r\n\r\n"), 400);
    assert_eq!(status("GET  / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nno colon\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), 413);
    assert_eq!(status("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 413);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000))), 431);
}

#[test]
fn a_connection_takes_one_request_after_another() {
    let site = site();
    let mut stream = TcpStream::connect(site.address).unwrap();
    let head = "HEAD /disk.iso HTTP/1.1\r\n\r\n";
    stream.write_all(format!("{head}{head}GET /disk.iso HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3);
    assert!(answer.ends_with("abcdefghij"));
}

#[test]
fn too_many_at_once_are_sent_away() {
    let site = site();
    let held: Vec<TcpStream> = (0..CONNECTIONS).map(|_| TcpStream::connect(site.address).unwrap()).collect();
    // They are counted when they are accepted, in order.
    let mut one_more = TcpStream::connect(site.address).unwrap();
    let mut answer = Vec::new();
    one_more.read_to_end(&mut answer).unwrap();
    assert_eq!(split(&answer).0, 503);
    drop(held);
    // Ends of connections are seen soon, not at once.
    while raw_status(&site) == Some(503) {}
}

fn raw_status(site: &Site) -> Option<u16> {
    let mut stream = TcpStream::connect(site.address).unwrap();
    _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let mut answer = Vec::new();
    _ = stream.read_to_end(&mut answer);
    (answer.len() > 12).then(|| split(&answer).0)
}

#[test]
fn folders_that_are_not_there() {
    let error = Server::bind(Path::new("/none/such"), "127.0.0.1:0".parse().unwrap()).err().unwrap();
    assert_eq!(error.kind(), Kind::Usage);
}
