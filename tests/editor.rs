//! The first line of the shipped documents, tried with the stock YAML language server (npm: `yaml-language-server`), as an
//! editor talks to it: no document has a mistake, a wrong field is underlined, and a field says what it is for. On a machine
//! without the server (`YAML_LANGUAGE_SERVER` names it elsewhere) this test says so and ends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

const MODELINE: &str = "# yaml-language-server: $schema=";
/// How long the server may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    diagnostics: BTreeMap<String, Vec<Value>>,
}

impl Server {
    fn start(root: &Path) -> Option<Server> {
        let program = std::env::var_os("YAML_LANGUAGE_SERVER").unwrap_or_else(|| "yaml-language-server".into());
        let mut command = Command::new(program);
        command.arg("--stdio").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let (input, output) = (child.stdin.take()?, child.stdout.take()?);
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            while let Some(message) = read(&mut output) {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut server = Server { child, input, messages, diagnostics: BTreeMap::new() };
        let folders = json!([{"uri": uri(root), "name": "root"}]);
        let can = json!({"workspace": {"configuration": true}, "textDocument": {"hover": {}}});
        server.ask(
            "initialize",
            &json!({"processId": null, "rootUri": uri(root), "capabilities": can, "workspaceFolders": folders}),
        );
        server.send(&json!({"method": "initialized", "params": {}}));
        Some(server)
    }

    fn send(&mut self, message: &Value) {
        let mut message = message.clone();
        message["jsonrpc"] = "2.0".into();
        let text = message.to_string();
        write!(self.input, "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        self.input.flush().unwrap();
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.send(&json!({"id": method, "method": method, "params": params}));
        loop {
            let message = self.next();
            if message["id"] == method && message["method"].is_null() {
                return message["result"].clone();
            }
        }
    }

    /// The next message; what the server asks is answered, what it finds is kept.
    fn next(&mut self) -> Value {
        let message = self.messages.recv_timeout(PATIENCE).expect("the language server answers");
        let settings = json!({"validate": true, "hover": true, "schemaStore": {"enable": false}});
        match message["method"].as_str() {
            Some("workspace/configuration") => {
                let items = message["params"]["items"].as_array().cloned().unwrap_or_default();
                let answer = |item: &Value| if item["section"] == "yaml" { settings.clone() } else { Value::Null };
                let result: Vec<Value> = items.iter().map(answer).collect();
                self.send(&json!({"id": message["id"], "result": result}));
            }
            Some("textDocument/publishDiagnostics") => {
                let found = message["params"]["diagnostics"].as_array().cloned().unwrap_or_default();
                self.diagnostics.insert(message["params"]["uri"].as_str().unwrap().to_owned(), found);
            }
            Some(_) if !message["id"].is_null() => self.send(&json!({"id": message["id"], "result": null})),
            _ => {}
        }
        message
    }

    /// What the server has against a text at a place.
    fn check(&mut self, path: &Path, text: &str) -> Vec<String> {
        let document = json!({"uri": uri(path), "languageId": "yaml", "version": 1, "text": text});
        self.send(&json!({"method": "textDocument/didOpen", "params": {"textDocument": document}}));
        while !self.diagnostics.contains_key(&uri(path)) {
            self.next();
        }
        let found = self.diagnostics.remove(&uri(path)).unwrap_or_default();
        let line = |one: &Value| {
            format!("{}: {}", one["range"]["start"]["line"].as_u64().unwrap() + 1, one["message"].as_str().unwrap())
        };
        found.iter().map(line).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn read(output: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim() {
            "" => break,
            header => length = header.strip_prefix("Content-Length: ").map_or(length, |text| text.parse().unwrap_or(0)),
        }
    }
    let mut body = vec![0; length];
    output.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn with_modeline(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            with_modeline(&path, found);
        } else if std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with(MODELINE)) {
            found.push(path);
        }
    }
}

#[test]
fn the_stock_language_server_knows_the_shipped_documents() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(mut server) = Server::start(root) else {
        return println!("skipped: no yaml-language-server here (npm install -g yaml-language-server)");
    };
    let mut documents = Vec::new();
    ["functions", "manifests"].iter().for_each(|folder| with_modeline(&root.join(folder), &mut documents));
    assert!(documents.len() > 20, "{} documents with a modeline", documents.len());
    for path in &documents {
        let found = server.check(path, &std::fs::read_to_string(path).unwrap());
        assert!(found.is_empty(), "{}: {found:?}", path.display());
    }
    let kernel = root.join("functions/images/data-plane/kernel.yaml");
    let text = std::fs::read_to_string(&kernel).unwrap();
    let hover = json!({"textDocument": {"uri": uri(&kernel)}, "position": {"line": 7, "character": 5}});
    let hover = server.ask("textDocument/hover", &hover);
    assert!(hover["contents"]["value"].as_str().unwrap_or_default().contains("sysctl.d"), "{hover}");
    // The same with a mistake, under a name that is not there.
    let odd = kernel.with_file_name("odd.yaml");
    let found = server.check(&odd, &text.replace("    sysctl:\n", "    sysctls:\n"));
    assert!(found.len() == 1 && found[0].starts_with("8: ") && found[0].contains("sysctls"), "{found:?}");
}
