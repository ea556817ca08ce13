//! Runs a target over its seeds and their mutations, and watches over each input.
//!
//! An input follows from the target and its seeds, the seed of the run and the number of the iteration
//! alone, so a finding is reproduced by these, and by the file that it is written to.

use std::any::Any;
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::memory::{self, processor_time};
use super::{Random, Target};

/// Most bytes that one input may make Rust code allocate at once: what the targets' caches promise,
/// and what they themselves hold.
const MOST_MEMORY: usize = 160 << 20;
/// Most processor time of one input, on a slow machine and in a debug build.
const MOST_TIME: Duration = Duration::from_secs(20);
/// An input that takes longer hangs.
const HANGS: Duration = Duration::from_secs(180);

/// What a run found.
pub struct Report {
    /// Inputs that were run.
    pub executions: u64,
    /// How long that took.
    pub took: Duration,
    /// What went wrong, one line each.
    pub findings: Vec<String>,
}

/// The input of one iteration: the seeds as they are first, then changed ones.
pub fn input(target: &Target, seeds: &[Vec<u8>], seed: u64, iteration: u64) -> Vec<u8> {
    if let Some(input) = usize::try_from(iteration).ok().and_then(|n| seeds.get(n)) {
        return input.clone();
    }
    let mut random = Random::new(seed, iteration);
    let mut input = seeds
        .get(random.below(seeds.len()))
        .cloned()
        .unwrap_or_default();
    for _ in 0..=random.length(5) {
        (target.mutate)(&mut input, &mut random);
    }
    input
}

/// Runs iterations over these seeds until they end or the time is over. Stops at the tenth finding.
pub fn run(
    target: &Target,
    seeds: &[Vec<u8>],
    seed: u64,
    iterations: Range<u64>,
    until: Option<Instant>,
    artifacts: Option<&Path>,
) -> Report {
    let start = Instant::now();
    let mut report = Report {
        executions: 0,
        took: Duration::ZERO,
        findings: Vec::new(),
    };
    for iteration in iterations {
        if report.findings.len() >= 10 || until.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let input = input(target, seeds, seed, iteration);
        let label = format!("{} --seed {seed} --iteration {iteration}", target.name);
        let outcome = Watched::start(&label, &input, artifacts).execute(target, &input);
        report.executions += 1;
        if let Err(problem) = outcome {
            let place = keep(&input, &label, artifacts);
            report.findings.push(format!("{label}: {problem}{place}"));
        }
    }
    report.took = start.elapsed();
    report
}

/// Runs one input.
///
/// # Errors
/// What is wrong with it.
pub fn check(target: &Target, label: &str, input: &[u8]) -> Result<(), String> {
    Watched::start(label, input, None).execute(target, input)
}

/// Writes an input to a file of its own; says where.
fn keep(input: &[u8], label: &str, artifacts: Option<&Path>) -> String {
    let Some(dir) = artifacts else {
        return String::new();
    };
    let path = dir.join(label.replace(" --", "-").replace(' ', "-"));
    match fs::create_dir_all(dir).and_then(|()| fs::write(&path, input)) {
        Ok(()) => format!(" ({})", path.display()),
        Err(error) => format!(" ({}: {error})", path.display()),
    }
}

/// The input that runs now.
struct Current {
    label: String,
    input: Vec<u8>,
    artifacts: Option<PathBuf>,
    since: Instant,
    processor: Duration,
}

static CURRENT: Mutex<Option<Current>> = Mutex::new(None);
/// The first panic of any thread since an input was started.
static PANIC: Mutex<Option<String>> = Mutex::new(None);
/// One input at a time: memory and panics are those of the process.
static ONE: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An input under watch.
struct Watched<'a> {
    _one: MutexGuard<'a, ()>,
}

impl Watched<'_> {
    fn start(label: &str, input: &[u8], artifacts: Option<&Path>) -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            note_panics();
            thread::spawn(watch);
        });
        let one = lock(&ONE);
        *lock(&PANIC) = None;
        *lock(&CURRENT) = Some(Current {
            label: label.into(),
            input: input.into(),
            artifacts: artifacts.map(Path::to_path_buf),
            since: Instant::now(),
            processor: processor_time(),
        });
        Watched { _one: one }
    }

    fn execute(self, target: &Target, input: &[u8]) -> Result<(), String> {
        let before = memory::start();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        let took = memory::most().saturating_sub(before);
        let panic = lock(&PANIC).take();
        match outcome {
            Err(payload) => return Err(panic.unwrap_or_else(|| text(&*payload))),
            Ok(()) if let Some(panic) = panic => return Err(format!("in another thread: {panic}")),
            Ok(()) if took > MOST_MEMORY => return Err(format!("takes {took} bytes of memory")),
            Ok(()) => {}
        }
        let current = lock(&CURRENT).take();
        match current.map(|current| processor_time().saturating_sub(current.processor)) {
            Some(time) if time > MOST_TIME => Err(format!("takes {time:?} of processor time")),
            _ => Ok(()),
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        *lock(&CURRENT) = None;
    }
}

/// Ends the process when an input hangs.
fn watch() {
    loop {
        thread::sleep(Duration::from_secs(1));
        let current = lock(&CURRENT);
        if let Some(current) = &*current
            && current.since.elapsed() > HANGS
        {
            let place = keep(&current.input, &current.label, current.artifacts.as_deref());
            eprintln!("finding: {}: hangs{place}", current.label);
            std::process::exit(1);
        }
    }
}

/// Keeps what a panic of an input says instead of printing it.
fn note_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if lock(&CURRENT).is_none() {
            return before(info);
        }
        let place = info
            .location()
            .map(|l| format!(" ({}:{})", l.file(), l.line()));
        let said = format!("{}{}", text(info.payload()), place.unwrap_or_default());
        lock(&PANIC).get_or_insert(said);
    }));
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without a text");
    text.chars().take(500).collect()
}
