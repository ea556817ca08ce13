use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};

use super::*;

mod slow;

const LONG: Duration = Duration::from_secs(20);
const TIMES: Times = Times {
    patience: Duration::from_millis(50),
    tick: Duration::from_millis(10),
    stall: Duration::from_secs(3_600),
};

/// Files whose inode says what a read of them waits for.
#[derive(Default)]
struct Fake {
    /// What is to be waited for no more, and all that takes less.
    open: Mutex<Option<Wait>>,
    opened: Condvar,
    advance: AtomicU64,
}

const ORDINARY: u64 = 0;
const WORK: u64 = 1_000_000;
const DECODER: u64 = 2_000_000;
const PASS: u64 = 3_000_000;

impl Fake {
    fn wait_of(inode: u64) -> Option<Wait> {
        match inode / 1_000_000 {
            0 => None,
            1 => Some(Wait::Work),
            2 => Some(Wait::Decoder),
            _ => Some(Wait::Pass),
        }
    }

    fn is_open(&self, wait: Wait) -> bool {
        *lock(&self.open) >= Some(wait)
    }

    fn until_open(&self, wait: Wait) {
        let open = lock(&self.open);
        let closed = |open: &mut Option<Wait>| *open < Some(wait);
        drop(self.opened.wait_while(open, closed).unwrap());
    }

    fn open_up_to(&self, wait: Wait) {
        *lock(&self.open) = Some(wait);
        self.opened.notify_all();
    }

    fn open(&self) {
        self.open_up_to(Wait::Pass);
    }
}

impl Files for Fake {
    fn attempt(&self, read: &Read, may: Option<Wait>) -> Result<Within, Errno> {
        match Fake::wait_of(read.inode) {
            Some(wait) if !self.is_open(wait) => {
                if may < Some(wait) {
                    return Ok(Within::Waits(wait));
                }
                self.until_open(wait);
            }
            _ => {}
        }
        Ok(Within::Read(Bytes::from(read.inode.to_string())))
    }

    fn touch(&self, _read: &Read) -> Result<(), Errno> {
        self.until_open(Wait::Pass);
        Ok(())
    }

    fn blob(&self, inode: u64) -> u64 {
        inode
    }

    fn advance(&self, _inode: u64) -> u64 {
        self.advance.load(Ordering::Relaxed)
    }

    fn stalled(&self, _read: &Read, _time: Duration) -> Errno {
        Errno::EIO
    }
}

struct Scene {
    files: Arc<Fake>,
    waits: Waits<Fake>,
}

impl Scene {
    fn new(times: Times) -> Scene {
        let files = Arc::new(Fake::default());
        Scene {
            waits: Waits::with(Arc::clone(&files), 4, times),
            files,
        }
    }

    fn read_by(&self, inode: u64, thread: u32) -> Receiver<Result<Bytes, Errno>> {
        let (sender, answer) = channel();
        let read = Read {
            inode,
            offset: 0,
            size: 4096,
            thread,
            ahead: false,
        };
        let send = move |result| drop(sender.send(result));
        self.waits.read(read, send);
        answer
    }

    fn read(&self, inode: u64) -> Receiver<Result<Bytes, Errno>> {
        self.read_by(inode, 0)
    }

    fn nothing_stays(&self) {
        let start = Instant::now();
        let inner = &self.waits.inner;
        let lanes = inner.lanes();
        while !lock(&inner.tickets).all.is_empty() || !lanes.iter().all(|lane| lane.is_empty()) {
            assert!(start.elapsed() < LONG, "something stays behind");
            thread::yield_now();
        }
    }
}

fn text(answer: &Receiver<Result<Bytes, Errno>>) -> Result<String, Errno> {
    let bytes = answer.recv_timeout(LONG).unwrap()?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn r15_an_ordinary_read_is_answered_where_it_came_in_however_many_wait() {
    let scene = Scene::new(TIMES);
    let files = [WORK, DECODER, PASS].into_iter();
    let inodes: Vec<u64> = files.flat_map(|first| first..first + 500).collect();
    let waiting: Vec<_> = inodes.iter().map(|inode| scene.read(*inode)).collect();
    for inode in ORDINARY..ORDINARY + 100 {
        // No other thread answers it.
        assert_eq!(
            scene.read(inode).try_recv().unwrap().unwrap(),
            inode.to_string()
        );
    }
    assert!(waiting.iter().all(|answer| answer.try_recv().is_err()));
    scene.files.open();
    for (inode, answer) in inodes.iter().zip(&waiting) {
        assert_eq!(text(answer).unwrap(), inode.to_string());
    }
    scene.nothing_stays();
}

#[test]
fn r15_what_has_an_end_in_sight_does_not_stand_behind_passes() {
    let scene = Scene::new(TIMES);
    let passes: Vec<_> = (PASS..PASS + 100).map(|inode| scene.read(inode)).collect();
    let decoders: Vec<_> = (DECODER..DECODER + 100).map(|i| scene.read(i)).collect();
    for first in [WORK, DECODER] {
        scene.files.open_up_to(if first == WORK {
            Wait::Work
        } else {
            Wait::Decoder
        });
        for inode in first..first + 20 {
            assert_eq!(text(&scene.read(inode)).unwrap(), inode.to_string());
        }
    }
    assert!(passes.iter().all(|answer| answer.try_recv().is_err()));
    scene.files.open();
    for answer in passes.iter().chain(&decoders) {
        text(answer).unwrap();
    }
    scene.nothing_stays();
}

#[test]
fn r15_more_than_there_is_room_for_are_refused_at_once() {
    let scene = Scene::new(TIMES);
    let waiting: Vec<_> = (0..MAX_WAITING as u64)
        .map(|n| scene.read(PASS + n % 7))
        .collect();
    let one_more = scene.read(PASS);
    assert_eq!(one_more.try_recv().unwrap().unwrap_err(), Errno::EBUSY);
    assert!(scene.read(ORDINARY).try_recv().unwrap().is_ok());
    scene.files.open();
    for answer in &waiting {
        text(answer).unwrap();
    }
    scene.nothing_stays();
    assert!(text(&scene.read(PASS)).is_ok());
}

#[test]
fn a_wait_ends_when_nothing_gets_on() {
    let stall = Duration::from_millis(200);
    let scene = Scene::new(Times { stall, ..TIMES });
    let start = Instant::now();
    let waiting: Vec<_> = [WORK, DECODER, PASS, PASS + 1, PASS + 1]
        .iter()
        .map(|inode| scene.read(*inode))
        .collect();
    for answer in &waiting {
        assert_eq!(text(answer).unwrap_err(), Errno::EIO);
    }
    assert!(start.elapsed() >= stall);
    // What stood still was of no harm for later.
    scene.files.open();
    assert!(text(&scene.read(PASS)).is_ok());
    scene.nothing_stays();
}

#[test]
fn a_wait_for_what_gets_on_slowly_does_not_end() {
    let stall = Duration::from_millis(200);
    let scene = Scene::new(Times { stall, ..TIMES });
    let waiting: Vec<_> = [WORK, DECODER, PASS].map(|i| scene.read(i)).into();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(50));
        scene.files.advance.fetch_add(1, Ordering::Relaxed);
    }
    assert!(waiting.iter().all(|answer| answer.try_recv().is_err()));
    scene.files.open();
    for answer in &waiting {
        text(answer).unwrap();
    }
    scene.nothing_stays();
}

#[test]
fn r11_who_was_killed_is_not_kept_waiting() {
    let scene = Scene::new(TIMES);
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let killed: Vec<_> = (PASS..PASS + 100)
        .map(|inode| scene.read_by(inode, child.id()))
        .collect();
    let alive: Vec<_> = [0, std::process::id()]
        .map(|thread| scene.read_by(PASS, thread))
        .into();
    thread::sleep(4 * TIMES.patience);
    assert!(killed.iter().all(|answer| answer.try_recv().is_err()));
    child.kill().unwrap();
    child.wait().unwrap();
    for answer in &killed {
        assert_eq!(text(answer).unwrap_err(), Errno::EINTR);
    }
    assert!(alive.iter().all(|answer| answer.try_recv().is_err()));
    scene.files.open();
    for answer in &alive {
        text(answer).unwrap();
    }
    scene.nothing_stays();
}

#[test]
fn r5_the_end_of_a_mount_ends_all_waits() {
    let scene = Scene::new(TIMES);
    let waiting: Vec<_> = (PASS..PASS + 100).map(|inode| scene.read(inode)).collect();
    let Scene { files, waits } = scene;
    drop(waits);
    for answer in &waiting {
        assert_eq!(text(answer).unwrap_err(), Errno::EIO);
    }
    files.open();
}
