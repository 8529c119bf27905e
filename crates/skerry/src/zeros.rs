//! Tells zeros from data.

/// True if all bytes are zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // By words, so that it runs at the speed of memory.
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_told_from_data_at_every_place() {
        assert!(is_zero(&[0; 100]));
        for place in 0..100 {
            let mut bytes = [0; 100];
            bytes[place] = 1;
            assert!(!is_zero(&bytes), "{place}");
        }
    }
}
