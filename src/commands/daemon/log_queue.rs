//! Log lines of a mount: written by a thread of their own, never by one that serves.
//!
//! A reader of the log that stops reading (a full pipe, a hung terminal) must not stop the mount:
//! lines wait in a short queue, of so many bytes, and what does not fit is counted and left out.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::signals;

/// Lines that may wait.
const QUEUE_LINES: usize = 1024;
/// Bytes that they may have together.
const QUEUE_BYTES: usize = 256 << 10;

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Takes whole log records; never blocks and never fails.
pub(crate) struct LogWriter {
    queue: SyncSender<Message>,
    counts: Arc<Counts>,
}

/// The other side of a [`LogWriter`].
pub(crate) struct LogQueue {
    queue: SyncSender<Message>,
    counts: Arc<Counts>,
}

/// What waits in the queue, and what did not get there.
#[derive(Default)]
struct Counts {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

impl LogQueue {
    /// Starts a thread that writes to `sink`. Errors of the sink are ignored: there is no place
    /// to report them.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(sink: Box<dyn Write + Send>) -> io::Result<(LogWriter, LogQueue)> {
        let (queue, messages) = sync_channel(QUEUE_LINES);
        let counts = Arc::<Counts>::default();
        let counted = Arc::clone(&counts);
        // The mount waits for its signals; a thread that they could reach would end the process.
        signals::deaf_to_signals(|| {
            std::thread::Builder::new()
                .name("log".into())
                .spawn(move || write_all(&messages, sink, &counted))
        })??;
        let writer = LogWriter {
            queue: queue.clone(),
            counts: Arc::clone(&counts),
        };
        Ok((writer, LogQueue { queue, counts }))
    }

    /// One more writer to the same sink.
    pub(crate) fn writer(&self) -> LogWriter {
        LogWriter {
            queue: self.queue.clone(),
            counts: Arc::clone(&self.counts),
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
        let Counts { bytes, lost } = &*self.counts;
        let add = |bytes: usize| {
            bytes
                .checked_add(record.len())
                .filter(|n| *n <= QUEUE_BYTES)
        };
        let fits = bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        // Copied only when there is room for it.
        let sent = fits.map(|_| self.queue.try_send(Message::Line(record.to_vec())));
        if matches!(sent, Ok(Err(_))) {
            bytes.fetch_sub(record.len(), Ordering::Relaxed);
        }
        if matches!(sent, Err(_) | Ok(Err(TrySendError::Full(_)))) {
            lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(messages: &Receiver<Message>, mut sink: Box<dyn Write + Send>, counts: &Counts) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Line(line) => {
                let _ = sink.write_all(&line);
                counts.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                let lost = counts.lost.swap(0, Ordering::Relaxed);
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
        assert!(lost > 3_000, "{lost}"); // 64 fit the pipe, 256 the queue
    }

    #[test]
    fn r13_what_waits_for_a_full_pipe_has_a_bound() {
        let (reader, writer) = io::pipe().unwrap();
        let (mut log, queue) = LogQueue::start(Box::new(writer)).unwrap();
        let line = [vec![b'x'; 16 << 10], b"\n".to_vec()].concat();
        for _ in 0..200 {
            log.write_all(&line).unwrap();
            let waiting = queue.counts.bytes.load(Ordering::Relaxed);
            assert!(waiting <= QUEUE_BYTES, "{waiting}");
        }
        // A pipe takes 64 KiB of them.
        assert!(queue.counts.lost.load(Ordering::Relaxed) > 150);
        drop(reader);
        queue.flush(Duration::from_secs(5));
        assert_eq!(queue.counts.bytes.load(Ordering::Relaxed), 0);
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
