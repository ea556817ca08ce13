//! Log lines of a mount: written by a thread of their own, never by one that serves.
//!
//! A reader of the log that stops reading (a full pipe, a hung terminal) must not stop the mount:
//! lines wait in a short queue, and what does not fit is counted and left out.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::signals;

/// Lines that may wait.
const QUEUE_LINES: usize = 1024;

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Takes whole log records; never blocks and never fails.
pub(crate) struct LogWriter {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

/// The other side of a [`LogWriter`].
pub(crate) struct LogQueue {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl LogQueue {
    /// Starts a thread that writes to `sink`. Errors of the sink are ignored: there is no place
    /// to report them.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(sink: Box<dyn Write + Send>) -> io::Result<(LogWriter, LogQueue)> {
        let (queue, messages) = sync_channel(QUEUE_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        // The mount waits for its signals; a thread that they could reach would end the process.
        signals::deaf_to_signals(|| {
            std::thread::Builder::new()
                .name("log".into())
                .spawn(move || write_all(&messages, sink, &counter))
        })??;
        let writer = LogWriter {
            queue: queue.clone(),
            lost: Arc::clone(&lost),
        };
        Ok((writer, LogQueue { queue, lost }))
    }

    /// One more writer to the same sink.
    pub(crate) fn writer(&self) -> LogWriter {
        LogWriter {
            queue: self.queue.clone(),
            lost: Arc::clone(&self.lost),
        }
    }

    /// Waits until what was logged so far is written, or `limit` has passed.
    pub(crate) fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }
}

impl Write for LogWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Line(record.to_vec())) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(messages: &Receiver<Message>, mut sink: Box<dyn Write + Send>, lost: &AtomicU64) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Line(line) => {
                let _ = sink.write_all(&line);
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    // In one piece, for sinks that take lines.
                    let line = format!("warning: {lost} messages were lost here\n");
                    let _ = sink.write_all(line.as_bytes());
                }
            }
            Message::Flush(done) => {
                let _ = sink.flush();
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read as _;

    use super::*;

    #[test]
    fn r13_a_full_pipe_blocks_nobody() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (mut log, queue) = LogQueue::start(Box::new(writer)).unwrap();
        let line = [[b'x'; 1022].as_slice(), b"\n"].concat();
        for _ in 0..5_000 {
            log.write_all(&line).unwrap();
        }
        queue.flush(Duration::from_millis(10));
        // Once somebody reads again, the log says how much is missing.
        drop((log, queue));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let (mut kept, mut lost) = (0, 0);
        for line in text.lines() {
            match line.strip_prefix("warning: ") {
                Some(rest) => lost += rest.split(' ').next().unwrap().parse::<u32>().unwrap(),
                None => kept += 1,
            }
        }
        assert_eq!(kept + lost, 5_000);
        assert!(lost > 3_000, "{lost}"); // 64 fit the pipe, 1,024 the queue
    }

    #[test]
    fn r13_a_closed_pipe_is_ignored() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (mut log, queue) = LogQueue::start(Box::new(writer)).unwrap();
        log.write_all(b"line\n").unwrap();
        queue.flush(Duration::from_secs(5));
        assert_eq!(log.write(b"line\n").unwrap(), 5);
    }
}
