#![no_main]

use modeloci_fuzz::mutate::{in_place, index};
use modeloci_fuzz::targets::layer::index_file::run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(data));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match seed % 2 {
        0 => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
        _ => in_place(index, data, size, max_size, seed),
    }
});
