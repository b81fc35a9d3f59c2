#![no_main]

mod meter;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstack_proof::fuzzing::scan(data, meter::METER));
