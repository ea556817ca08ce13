#![no_main]

use modeloci_fuzz::targets::layer::chunked_layer::run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(data));
