#![no_main]

use modeloci_fuzz::targets::codec::histograms::run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(data));
