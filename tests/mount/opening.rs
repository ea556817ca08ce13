//! Mounts that take long to answer: who waits is told, and can end it; storage that is dead.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Mounted, PATIENCE, Packaging, Run, Scene, Server, kill, lives, mounts_at, until,
};
use crate::sandbox::children_of;
use crate::support;

/// Longest time that an end may take which comes at once.
const SOON: Duration = Duration::from_secs(8);
/// The server looks twice a second whether it has got on.
const LOOK: Duration = Duration::from_millis(600);

/// Layers without a chunk table, of each of which much is decoded until its file begins, and all when the
/// model is opened: some hundred milliseconds of work, as much as opening may take.
fn slow_layers() -> Scene {
    let scene = Scene::empty(Packaging::Foreign);
    let entry = |layer: &mut tar::Builder<Vec<u8>>, name: &str, kind, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        layer.append_data(&mut header, name, bytes).unwrap();
    };
    let layers = (0..64).map(|n| {
        let mut layer = tar::Builder::new(Vec::new());
        for _ in 0..1_600 {
            entry(&mut layer, "d/", tar::EntryType::Directory, &[]);
        }
        let content = format!("{n}");
        entry(&mut layer, "f", tar::EntryType::Regular, content.as_bytes());
        let blob = zstd::encode_all(&layer.into_inner().unwrap()[..], 1);
        (format!("{n}/f"), blob.unwrap())
    });
    let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
    support::write_layers(&scene.path("m.tar"), media_type, layers);
    scene
}

/// The one child of a process, as soon as it has it.
fn child_of(parent: i32) -> i32 {
    let mut child = None;
    until("it has a child", || {
        child = children_of(parent).first().copied();
        child.is_some()
    });
    child.unwrap()
}

/// The processes that were started with a path of the scene.
fn processes(scene: &Scene) -> Vec<i32> {
    let path = scene.path("");
    let path = path.to_str().unwrap();
    let named = |pid: i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(path) && lives(pid)
    };
    let entries = fs::read_dir("/proc").unwrap();
    let numbers = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let ours = std::process::id() as i32;
    numbers.filter(|pid| *pid != ours && named(*pid)).collect()
}

/// Lets a process do a little, and a little more, until `done`; stopped in between, and at the end.
fn by_little(pid: i32, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut little = Duration::from_millis(2);
    while !done() {
        assert!(start.elapsed() < PATIENCE, "it gets on, and nobody is told");
        kill(pid, libc::SIGCONT);
        thread::sleep(little);
        kill(pid, libc::SIGSTOP);
        thread::sleep(LOOK);
        little = little * 5 / 4;
    }
}

#[track_caller]
fn nothing_is_left(scene: &Scene) {
    until("no process is left", || processes(scene).is_empty());
    assert_eq!(mounts_at(&scene.path("mnt")), 0);
}

fn received(socket: &UnixDatagram) -> Vec<String> {
    let mut buf = [0; 4096];
    let next = || socket.recv(&mut buf).ok().map(|n| buf[..n].to_vec());
    std::iter::from_fn(next)
        .map(|text| String::from_utf8(text).unwrap())
        .collect()
}

#[test]
fn m13_a_service_manager_gives_more_time_as_long_as_opening_gets_on() {
    let scene = slow_layers();
    let socket = UnixDatagram::bind(scene.path("notify")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let archive = scene.path("m.tar");
    let mut command = scene.command(&["mount", archive.to_str().unwrap(), "mnt", "--foreground"]);
    command.env("NOTIFY_SOCKET", scene.path("notify"));
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut mount = Server::of(child, scene.path("mnt"));
    let server = child_of(mount.child.id() as i32);
    kill(server, libc::SIGSTOP);
    let mut told = Vec::new();
    by_little(server, || {
        told.extend(received(&socket));
        told.len() > 1
    });
    for text in &told {
        let rest = text.strip_prefix("EXTEND_TIMEOUT_USEC=30000000\nSTATUS=opening, ");
        let rest = rest.unwrap_or_else(|| panic!("{text}"));
        assert!(rest.ends_with(" read"), "{text}");
    }
    assert_ne!(told[0], told[1]);
    thread::sleep(2 * LOOK);
    received(&socket);
    thread::sleep(2 * LOOK);
    assert_eq!(received(&socket), [""; 0], "it stands still");
    mount.signal(libc::SIGTERM);
    let (code, took) = mount.wait();
    assert!(code == Some(0) && took < SOON, "{code:?} after {took:?}");
    nothing_is_left(&scene);
}

/// Both ends of a terminal.
fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let (name, null) = (std::ptr::null_mut(), std::ptr::null());
    // SAFETY: writes two numbers; the rest may be null.
    let made = unsafe { libc::openpty(&mut ours, &mut theirs, name, null, std::ptr::null()) };
    assert_eq!(made, 0);
    // SAFETY: both were opened just now, for nobody else.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

/// In the background too the process that was started has the terminal, and is the one that is
/// interrupted there.
#[test]
fn m13_a_terminal_shows_opening_and_an_interrupt_there_ends_it() {
    for option in ["--foreground", "--no-index"] {
        let scene = slow_layers();
        let archive = scene.path("m.tar");
        let (mut shown, terminal) = terminal();
        rustix::io::ioctl_fionbio(&shown, true).unwrap();
        let mut command = scene.command(&["mount", archive.to_str().unwrap(), "mnt", option]);
        let mut started = command.stderr(terminal).spawn().unwrap();
        drop(command);
        let mut keeper = started.id() as i32;
        if option != "--foreground" {
            keeper = child_of(keeper);
        }
        let server = child_of(keeper);
        kill(server, libc::SIGSTOP);
        let mut text = Vec::new();
        by_little(server, || {
            let _ = shown.read_to_end(&mut text);
            String::from_utf8_lossy(&text).contains("opening")
        });
        kill(started.id() as i32, libc::SIGINT);
        ends(&mut started, libc::SIGINT);
        nothing_is_left(&scene);
    }
}

/// Ends soon: of itself, or by the signal where it was nothing but a process that waits.
#[track_caller]
fn ends(child: &mut Child, signal: i32) {
    let start = Instant::now();
    let mut status = None;
    until("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let (status, took) = (status.unwrap(), start.elapsed());
    let right = status.success() || status.signal() == Some(signal);
    assert!(right && took < SOON, "{status} after {took:?}");
}

/// A storage whose server is stopped: who asks it for something waits for ever.
struct Dead {
    scene: Scene,
    mount: Mounted,
    server: i32,
}

impl Dead {
    /// With an archive, of which is known what it is where somebody has looked before.
    fn new(known: bool) -> Dead {
        let inner = Scene::new();
        let archive = fs::read(inner.path("m.tar")).unwrap();
        let files = vec![("m.tar".to_string(), archive)];
        let scene = Scene::packaged(Packaging::Packed("none"), files);
        let mount = scene.mount(&[]);
        if known {
            fs::metadata(mount.path("m.tar")).unwrap();
        }
        let server = mount.server();
        kill(server, libc::SIGSTOP);
        Dead {
            scene,
            mount,
            server,
        }
    }

    fn archive(&self) -> PathBuf {
        self.mount.path("m.tar")
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        if lives(self.server) {
            kill(self.server, libc::SIGCONT);
        }
    }
}

/// Starts a mount of an archive that cannot be read, and sees it wait.
fn waiting(scene: &Scene, archive: &Path, options: &[&str]) -> Child {
    let mut args = vec!["mount", archive.to_str().unwrap()];
    let mountpoint = scene.path("mnt");
    args.push(mountpoint.to_str().unwrap());
    args.extend(options);
    let mut command = scene.command(&args);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    thread::sleep(LOOK);
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    child
}

#[test]
fn m14_a_mount_that_waits_for_dead_storage_is_ended_by_a_signal() {
    for known in [false, true] {
        let dead = Dead::new(known);
        let scene = Scene::empty(Packaging::Foreign);
        for signal in [libc::SIGTERM, libc::SIGINT] {
            for options in [
                &["--foreground"][..],
                &["--foreground", "--no-sandbox"],
                &[],
            ] {
                let mut child = waiting(&scene, &dead.archive(), options);
                kill(child.id() as i32, signal);
                ends(&mut child, signal);
                nothing_is_left(&scene);
            }
        }
        // Nobody tells the process behind it.
        let mut child = waiting(&scene, &dead.archive(), &[]);
        kill(child.id() as i32, libc::SIGKILL);
        ends(&mut child, libc::SIGKILL);
        nothing_is_left(&scene);
    }
}

/// Where the log and the indexes are to be is looked at by the process that hears the signals.
#[test]
fn m14_so_is_one_that_waits_for_its_log_or_its_indexes() {
    let dead = Dead::new(false);
    let scene = Scene::new();
    for option in ["--log-file", "--index-dir"] {
        let place = dead.mount.path(option);
        let options = ["--foreground", option, place.to_str().unwrap()];
        let mut child = waiting(&scene, &scene.path("m.tar"), &options);
        kill(child.id() as i32, libc::SIGTERM);
        ends(&mut child, libc::SIGTERM);
        nothing_is_left(&scene);
    }
}

#[test]
fn m14_a_mount_whose_server_is_stopped_is_asked_and_unmounted_in_bounded_time() {
    for option in [&["--lazy"][..], &[]] {
        let dead = Dead::new(false);
        let start = Instant::now();
        if option.is_empty() {
            let done = Run::of(dead.scene.command(&["status"]).arg(&dead.mount.0));
            done.refused(5, "does not answer");
            assert!(start.elapsed() < 2 * SOON);
        }
        let start = Instant::now();
        until("it is unmounted", || {
            dead.mount.umount(option).code == Some(0)
        });
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert_eq!(mounts_at(&dead.mount.0), 0);
        kill(dead.server, libc::SIGCONT);
        until("the process ends", || !lives(dead.server));
    }
}
