#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtmd_fuzz_targets::SEGMENT.run(bytes));
