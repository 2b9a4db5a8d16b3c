//! What the real program said and how it ended.

use std::process::Output;

pub struct Outcome {
    pub code: Option<i32>,
    pub text: String,
}

impl Outcome {
    pub fn of(output: Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Outcome { code: output.status.code(), text }
    }

    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "`{word}` is not in:\n{}", self.text);
        }
    }

    /// The machine refuses what every build needs.
    pub fn is_skipped(&self) -> bool {
        let refused = self.code == Some(1) && (self.text.contains("namespace") || self.text.contains("newuidmap"));
        // That would be a mistake of ours.
        let refused = refused && !self.text.contains("threads running");
        if refused || self.text.contains("/etc/subuid gives") {
            println!("skipped: no user namespaces here: {}", self.text);
            return true;
        }
        false
    }
}
