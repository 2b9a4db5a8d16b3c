//! `update-ca-certificates`, which a package set runs twice, in one process in place of a thousand: basename, sed, sed, ln
//! and readlink for each certificate.
//!
//! Owns: which versions of the program are known, and the replacement, for the ways in which its package calls it.
//! Follows update-ca-certificates(8): a link for each certificate of the configuration in `/etc/ssl/certs`, all of them
//! one after the other in `ca-certificates.crt`, and `openssl rehash` if any link is new or gone. Everything is looked at
//! before the first change; what is unusual (local certificates, hooks, folders among the links) is for the program itself.

use super::StandIn;

pub(super) const STAND_IN: StandIn =
    StandIn { program: "usr/sbin/update-ca-certificates", known: Some(&KNOWN), text: REPLACEMENT };

/// First half of the SHA-256 digest of the whole program, and where it comes from.
const KNOWN: [(&str, &str); 1] = [("395364bffc7ce85ccbe2de71215f9c6c", "ca-certificates 20230311 (Debian 12)")];

/// Perl is part of every Debian (`perl-base` is essential).
const REPLACEMENT: &str = r#"#!/usr/bin/perl
use strict;
use warnings;
sub plain { exec '/run/imagebuilder-helpers/plain/update-ca-certificates', @ARGV; exit 127 }
my ($conf, $store, $local) =
	('/etc/ca-certificates.conf', '/usr/share/ca-certificates', '/usr/local/share/ca-certificates');
my ($links, $hooks, $bundle) = ('/etc/ssl/certs', '/etc/ca-certificates/update.d', 'ca-certificates.crt');
plain() unless @ARGV == 0 || (@ARGV == 2 && $ARGV[0] eq '--hooksdir' && $ARGV[1] eq '');
sub names { my ($folder) = @_; opendir(my $handle, $folder) or return (); grep { !/^\.\.?$/ } readdir($handle) }
sub bytes { my ($file) = @_; open(my $handle, '<:raw', $file) or plain(); local $/; my $all = <$handle>; $all // '' }
plain() if names($local) || (@ARGV == 0 && names($hooks)) || -e "$links/$bundle.new" || -x '/sbin/restorecon';
plain() unless -s $conf && chdir($links);
my @names = names('.');
plain() if grep { -d && !-l } @names;
my $text = bytes($conf);
plain() if $text !~ /\n\z/ || $text =~ /[\\\0\r]|^[ \t]|[ \t]$/m;
my (@add, @remove);
for my $line (split /\n/, $text) {
	next if $line eq '' || $line =~ /^#/;
	my $unwanted = $line =~ s/^!//;
	plain() unless $line =~ m{([^/]+)\z};
	(my $name = $1) =~ s/(.)\.crt\z/$1/;
	my $file = "$store/$line";
	if ($unwanted) { push @remove, "$links/$name.pem"; next }
	if (!-f $file) { print STDERR "W: $file not found, but listed in $conf.\n"; next }
	$name =~ tr/ (),/_==_/;
	plain() if -d "$links/$name.pem";
	my $content = bytes($file);
	$content .= "\n" unless $content eq '' || $content =~ /\n\z/;
	push @add, [$file, "$links/$name.pem", $content];
}
print "Updating certificates in $links...\n";
my ($added, $removed) = (0, 0);
for my $link (@remove) {
	next unless -l $link;
	unlink($link) or die "$link: $!";
	$removed++;
}
my $all = '';
for (@add) {
	my ($file, $link, $content) = @$_;
	if (!-e $link || (readlink($link) // '') ne $file) {
		unlink($link);
		symlink($file, $link) or die "$link: $!";
		$added++;
	}
	$all .= $content;
}
if (@add) {
	open(my $new, '>:raw', "$bundle.new") or die "$bundle.new: $!";
	print $new $all or die "$bundle.new: $!";
	close($new) or die "$bundle.new: $!";
}
if ($added || $removed) {
	unlink(grep { -l && !-e } names('.'));
	if (my $status = system('openssl rehash . >/dev/null')) { unlink("$bundle.new"); exit($status >> 8 || 1) }
}
if (@add) {
	chmod(0644, "$bundle.new") && rename("$bundle.new", $bundle) or die "$bundle: $!";
}
print "$added added, $removed removed; done.\n";
"#;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;
    use crate::testing::executable;

    /// A target in miniature, with an openssl and a plain program that say that they were called.
    struct Target(tempfile::TempDir);

    impl Target {
        fn new(conf: &str) -> Self {
            let target = Target(tempfile::tempdir().unwrap());
            for folder in
                ["usr/share/ca-certificates/m", "usr/local/share/ca-certificates", "etc/ssl/certs", "run/plain"]
            {
                fs::create_dir_all(target.at(folder)).unwrap();
            }
            fs::write(target.at("etc/ca-certificates.conf"), conf).unwrap();
            for (name, text) in [("one.crt", "1\n"), ("two (x), y.crt", "2"), ("three.crt", "3\n")] {
                fs::write(target.at("usr/share/ca-certificates/m").join(name), text).unwrap();
            }
            target.program("openssl", "echo rehash >>../calls");
            target.program("run/plain/update-ca-certificates", "echo plain \"$@\"");
            let text = REPLACEMENT.replace("/run/imagebuilder-helpers", &target.at("run").display().to_string());
            let text = ["'/etc", "'/usr", "'/sbin"].iter().fold(text, |text, start| {
                text.replace(start, &format!("'{}{}", target.0.path().display(), &start[1..]))
            });
            // The first line names the interpreter.
            fs::write(target.at("ours"), text).unwrap();
            target
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn program(&self, path: &str, text: &str) {
            executable(&self.at(path), format!("#!/bin/sh\n{text}\n"));
        }

        fn run(&self, arguments: &[&str]) -> String {
            let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap());
            let output = Command::new("perl").arg(self.at("ours")).args(arguments).env("PATH", path).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        }
    }

    fn perl() -> bool {
        let there = Command::new("perl").arg("-v").output().is_ok();
        if !there {
            eprintln!("skipped: no perl here");
        }
        there
    }

    #[test]
    fn links_and_bundle() {
        if !perl() {
            return;
        }
        let target = Target::new("# comment\n\nm/two (x), y.crt\nm/missing.crt\n!m/three.crt\nm/one.crt\n");
        let certs = target.at("etc/ssl/certs");
        symlink("gone", certs.join("abc.0")).unwrap();
        symlink(target.at("usr/share/ca-certificates/m/three.crt"), certs.join("three.pem")).unwrap();
        assert!(target.run(&["--hooksdir", ""]).ends_with("2 added, 1 removed; done.\n"));
        assert_eq!(fs::read_to_string(certs.join("ca-certificates.crt")).unwrap(), "2\n1\n");
        let link = |name: &str| fs::read_link(certs.join(name)).unwrap();
        assert_eq!(link("one.pem"), target.at("usr/share/ca-certificates/m/one.crt"));
        assert_eq!(link("two_=x=__y.pem"), target.at("usr/share/ca-certificates/m/two (x), y.crt"));
        let names = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!(
            (names(&certs), fs::read_to_string(target.at("etc/ssl/calls")).unwrap()),
            (3, "rehash\n".to_owned())
        );
        // Nothing to do: the bundle is made again, and nothing else.
        assert!(target.run(&[]).ends_with("0 added, 0 removed; done.\n"));
        assert_eq!(
            (names(&certs), fs::read_to_string(target.at("etc/ssl/calls")).unwrap()),
            (3, "rehash\n".to_owned())
        );
    }

    #[test]
    fn what_is_unusual_is_left_to_the_program() {
        if !perl() {
            return;
        }
        for conf in ["m/one.crt", " m/one.crt\n", "m/one.crt \n", "m/o\\ne.crt\n", "m/\n", ""] {
            assert_eq!(Target::new(conf).run(&[]), "plain\n", "{conf:?}");
        }
        let usual = "m/one.crt\n";
        assert_eq!(Target::new(usual).run(&["--fresh"]), "plain --fresh\n");
        for file in ["usr/local/share/ca-certificates/own.crt", "etc/ssl/certs/ca-certificates.crt.new"] {
            let target = Target::new(usual);
            fs::write(target.at(file), "x").unwrap();
            assert_eq!(target.run(&[]), "plain\n", "{file}");
        }
        let target = Target::new(usual);
        fs::create_dir_all(target.at("etc/ca-certificates/update.d/hook")).unwrap();
        assert_eq!(target.run(&[]), "plain\n");
        assert!(target.run(&["--hooksdir", ""]).ends_with("1 added, 0 removed; done.\n"));
    }
}
