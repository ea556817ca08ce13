//! What a server that reads a registry cannot find out for itself, since it can read no file and run no
//! program: the addresses of names, and the credential for its registry. Its keeper does.
//!
//! A question may take as long as a name server or a credential helper does, so each has a thread of the
//! keeper's, which goes on hearing signals meanwhile. There are a few of these, whatever a server asks; and a
//! server gets no credential but that for the registry of its model.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use modeloci::source::registry::{self, Found, Outside, Reference};
use modeloci::{Error, Result};

use super::wire::{MAX_ANSWER_BYTES, Order, Question, Report, Told, Wire};

/// Questions that are looked into at a time.
const MOST: usize = 4;
/// How long a server waits: longer than a helper may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The keeper's side.
pub(crate) struct Errands {
    /// The model that is served.
    reference: Option<Reference>,
    running: Arc<AtomicUsize>,
}

impl Errands {
    /// For a model in a registry; for any other nothing is found out.
    pub(crate) fn new(reference: Option<Reference>) -> Errands {
        Errands {
            reference,
            running: Arc::default(),
        }
    }

    /// Has a question looked into, and answered over `wire`.
    pub(crate) fn run(&self, number: u32, question: Question, wire: &Wire) {
        let Some(reference) = self.reference.clone() else {
            return;
        };
        let Ok(wire) = wire.try_clone() else { return };
        // Only this thread starts any.
        if self.running.load(Ordering::SeqCst) >= MOST {
            return;
        }
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Arc::clone(&self.running);
        let work = move || {
            // A server that is gone, or does not listen, needs no answer.
            let _ = wire.order(&Order::Told(number, Told(look_into(&question, &reference))));
            running.fetch_sub(1, Ordering::SeqCst);
        };
        if thread::Builder::new()
            .name("errand".into())
            .spawn(work)
            .is_err()
        {
            self.running.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// An answer begins with `+`, a failure with `-`.
fn look_into(question: &Question, reference: &Reference) -> Vec<u8> {
    let answer = match question {
        Question::Credential => {
            let found = registry::find_credential(reference.host(), reference.repository());
            found
                .map(|found| found.to_bytes())
                .map_err(|error| error.to_string())
        }
        Question::Addresses(host, port) => match (host.as_str(), *port).to_socket_addrs() {
            Ok(found) => {
                let found: Vec<_> = found.take(16).map(|address| address.to_string()).collect();
                Ok(found.join(" ").into_bytes())
            }
            Err(_) => Err(format!("failed to lookup address of {host}")),
        },
    };
    let answer = answer.and_then(|answer| match answer.len() < MAX_ANSWER_BYTES {
        true => Ok(answer),
        false => Err("the credential is too long".into()),
    });
    match answer {
        Ok(answer) => [b"+".as_slice(), &answer].concat(),
        Err(why) => format!("-{why}").into_bytes(),
    }
}

/// The server's side.
pub(crate) struct AskKeeper {
    wire: Arc<Wire>,
    answers: Mutex<Receiver<(u32, Told)>>,
    asked: AtomicU32,
}

impl AskKeeper {
    pub(crate) fn new(wire: Arc<Wire>, answers: Receiver<(u32, Told)>) -> AskKeeper {
        AskKeeper {
            wire,
            answers: Mutex::new(answers),
            asked: AtomicU32::new(0),
        }
    }

    /// Asks one question at a time. An answer that comes too late is none to the next one.
    fn ask(&self, question: Question) -> io::Result<Vec<u8>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        self.wire.report(&Report::Ask(number, question))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let late = |_| io::Error::other("the process that keeps the mount does not answer");
            let (which, Told(answer)) = answers.recv_timeout(left).map_err(late)?;
            if which != number {
                continue;
            }
            return match answer.split_first() {
                Some((b'+', answer)) => Ok(answer.to_vec()),
                Some((_, why)) => Err(io::Error::other(String::from_utf8_lossy(why))),
                None => Err(io::ErrorKind::InvalidData.into()),
            };
        }
    }
}

impl Outside for AskKeeper {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        // What is an address already is nobody's to look up.
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let answer = self.ask(Question::Addresses(host.to_string(), port))?;
        let text = String::from_utf8_lossy(&answer);
        Ok(text
            .split(' ')
            .filter_map(|address| address.parse().ok())
            .collect())
    }

    fn credentials(&self, _: &str, _: &str) -> Result<Found> {
        let failed = Error::io("read", "the credential for the registry");
        let odd = || io::Error::from(io::ErrorKind::InvalidData);
        let answer = self.ask(Question::Credential);
        let found = answer.and_then(|answer| Found::from_bytes(&answer).ok_or_else(odd));
        found.map_err(failed)
    }
}
