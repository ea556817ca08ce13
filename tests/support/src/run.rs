//! Runs commands to their end, and says what is asked of an end.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a command did.
#[derive(Debug)]
pub struct Run {
    line: String,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// Runs a command, however long it takes.
    pub fn of(command: &mut Command) -> Run {
        Run::within(Duration::MAX, command)
    }

    /// Runs a command, which is killed when it takes longer: it hangs.
    #[track_caller]
    pub fn within(patience: Duration, command: &mut Command) -> Run {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.stderr(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Run::end_of(child, patience, &line(command))
    }

    /// Waits for a child, with what it says to pipes.
    #[track_caller]
    pub fn end_of(mut child: Child, patience: Duration, line: &str) -> Run {
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        let code = wait(&mut child, patience, line);
        let said = |drain: Option<thread::JoinHandle<Vec<u8>>>| {
            drain.map_or_else(Vec::new, |drain| drain.join().unwrap())
        };
        Run {
            line: line.to_string(),
            code,
            stdout: said(stdout),
            stderr: String::from_utf8(said(stderr)).unwrap(),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap()
    }

    /// Success, of which no error tells.
    #[track_caller]
    pub fn ok(self) -> Run {
        let Run { line, stderr, .. } = &self;
        let stdout = String::from_utf8_lossy(&self.stdout);
        assert_eq!(self.code, Some(0), "{line}: {stdout}{stderr}");
        assert!(!stderr.contains("error"), "{line}: {stderr}");
        self
    }

    /// Success, and not a word on stderr.
    #[track_caller]
    pub fn quiet(self) -> Run {
        let run = self.ok();
        assert_eq!(run.stderr, "", "{}", run.line);
        run
    }

    /// Refused: the code, nothing on stdout, and one line of error that has all the words.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Run {
        let Run { line, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{line}: {stderr}");
        assert!(self.stdout.is_empty(), "{line}: {}", self.text());
        self.one_error(words)
    }

    /// Refused, with nothing said before the error; there or in the hint behind it is `text`.
    #[track_caller]
    pub fn refused(self, code: i32, text: &str) -> Run {
        let run = self.fails(code, &[]);
        let Run { line, stderr, .. } = &run;
        assert!(stderr.starts_with("error: "), "{line}: {stderr}");
        assert!(stderr.contains(text), "{line}: no {text:?} in {stderr}");
        run
    }

    /// One line of error that has all the words, and nothing that only a bug would print.
    #[track_caller]
    pub fn one_error(self, words: &[&str]) -> Run {
        let Run { line, stderr, .. } = &self;
        let errors: Vec<&str> = stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{line}: {stderr}");
        for word in words {
            assert!(errors[0].contains(word), "{line}: no {word:?} in {stderr}");
        }
        self.sober()
    }

    /// No panic, no debug output, no control characters.
    #[track_caller]
    pub fn sober(self) -> Run {
        let Run { line, stderr, .. } = &self;
        assert!(self.code.is_some(), "{line} was killed: {stderr}");
        assert_ne!(self.code, Some(101), "{line}: {stderr}");
        assert!(!stderr.contains("panicked"), "{line}: {stderr}");
        let controls = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
        assert!(!controls(stderr), "{line}: {stderr:?}");
        self
    }
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// Reads a pipe to its end, so that nobody waits for room in it.
fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// The exit code; `None` when a signal ended it.
#[track_caller]
fn wait(child: &mut Child, patience: Duration, line: &str) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > patience {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{line} hangs");
        }
        thread::sleep(Duration::from_millis(2));
    }
}
