//! What a driver wants to know of a SPIR-V module besides its words.

use crate::Result;

pub struct Module {
    /// The entry point.
    pub entry: String,
    pub bindings: Vec<Binding>,
}

pub struct Binding {
    pub number: u32,
    /// Else it is a storage buffer.
    pub uniform: bool,
}

/// Words of the header.
const HEADER: usize = 5;
/// `OpEntryPoint`, `OpVariable`, `OpDecorate`; the decoration `Binding`; the storage class `Uniform`.
const ENTRY_POINT: u32 = 15;
const VARIABLE: u32 = 59;
const DECORATE: u32 = 71;
const BINDING: u32 = 33;
const UNIFORM: u32 = 2;

impl Module {
    pub fn read(words: &[u32]) -> Result<Module> {
        let mut module = Module { entry: String::new(), bindings: Vec::new() };
        let mut decorated = Vec::new();
        let mut at = HEADER;
        while let Some(first) = words.get(at) {
            let (length, op) = ((first >> 16) as usize, first & 0xffff);
            let Some(operands) = words.get(at + 1..at + length) else {
                return Err("SPIR-V that ends in the middle".into());
            };
            match (op, operands) {
                (ENTRY_POINT, [_, _, name @ ..]) => {
                    let bytes = name.iter().flat_map(|word| word.to_le_bytes());
                    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
                    module.entry = String::from_utf8(bytes)?;
                }
                (DECORATE, [id, BINDING, number]) => decorated.push((*id, *number)),
                (VARIABLE, [_, id, class, ..]) => {
                    let number = decorated.iter().find(|(decorated, _)| decorated == id);
                    module.bindings.extend(number.map(|(_, number)| Binding {
                        number: *number,
                        uniform: *class == UNIFORM,
                    }));
                }
                _ => {}
            }
            at += length;
        }
        Ok(module)
    }
}
