#![no_main]

use modeloci_fuzz::targets::layer::chunk_table::run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(data));
