#![no_main]

use modeloci_fuzz::mutate::{archive, in_place};
use modeloci_fuzz::targets::model::layout_dir::run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(data));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match seed % 2 {
        0 => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
        _ => in_place(archive, data, size, max_size, seed),
    }
});
