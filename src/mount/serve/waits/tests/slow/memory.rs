//! Memory that long work holds: who needs much of it waits in a lane, and nobody else waits.

use super::*;
use crate::limits;
use crate::memory::limiter::{Term, Unit};

const LARGEST: usize = limits::MAX_CHUNK_BYTES as usize;
const FILES: [(&str, u8); 2] = [("large0", 0x30), ("large1", 0x31)];

/// Files in the largest chunks, one in ordinary ones, and all the memory that long work may have.
fn model_and_a_pass(times: Times) -> (Mounted, Unit) {
    let mut layers = Layers::default();
    for (path, byte) in FILES {
        layers.packed_in(path, &vec![byte; LARGEST + 4096], limits::MAX_CHUNK_BYTES);
    }
    layers.packed("small", &noise(3, 3 * MIB));
    let scene = layers.open(Vec::new(), times);
    let limiter = scene.files.model.limiter();
    let all = limiter.room(Term::Long);
    let pass = limiter.take(all, Term::Long, "a test").unwrap();
    (scene, pass)
}

#[test]
fn r15_memory_that_a_pass_holds_is_not_waited_for_on_an_event_loop() {
    let _alone = lock(&ALONE);
    let (scene, pass) = model_and_a_pass(TIMES);
    let many = (0..24).map(|n| (FILES[n % 2], n * 500_000));
    let large: Vec<_> = many
        .map(|((path, byte), at)| (byte, scene.read(path, at)))
        .collect();
    let small = noise(3, 3 * MIB);
    for at in (0..3 * MIB).step_by(300_000) {
        // No other thread answers it.
        let answer = scene.read("small", at).try_recv().unwrap().unwrap();
        assert_eq!(answer, small[at..at + answer.len()]);
    }
    assert!(large.iter().all(|(_, answer)| answer.try_recv().is_err()));
    drop(pass);
    for (byte, answer) in &large {
        assert_eq!(bytes_of(answer, "large"), vec![*byte; 4096]);
    }
    scene.nothing_stays();
}

#[test]
fn r15_a_wait_for_memory_ends_as_any_other() {
    let _alone = lock(&ALONE);
    let (scene, pass) = model_and_a_pass(TIMES);
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let killed = scene.read_by(child.id(), "large0", 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let answer = killed.recv_timeout(LONG).unwrap();
    assert_eq!(answer.unwrap_err(), Errno::EINTR);
    drop((pass, scene));

    let (scene, pass) = model_and_a_pass(STALLING);
    let answer = scene.read("large0", 0).recv_timeout(LONG).unwrap();
    assert_eq!(answer.unwrap_err(), Errno::EIO);
    drop(pass);
    assert_eq!(
        bytes_of(&scene.read("large1", 0), "large"),
        vec![0x31; 4096]
    );
    scene.nothing_stays();
}
