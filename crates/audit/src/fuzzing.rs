//! Private decoders, for the fuzz targets alone.

use crate::{accepted, chain, journal};

/// A segment: what is kept are whole lines in sequence that follow one another.
pub fn segment(data: &[u8]) {
    let mut head = chain::Head {
        last: 0,
        link: chain::GENESIS,
    };
    let mut lines = 0;
    let end = chain::take_lines(data, &mut head, |_, _| lines += 1);
    let kept = &data[..end];
    assert!(kept.is_empty() || kept.ends_with(b"\n"));
    assert!(head.last >= lines);
    assert_eq!(
        kept.iter().filter(|&&byte| byte == b'\n').count() as u64,
        lines
    );
}

/// A journal: what is found fits what its header says.
pub fn journal(data: &[u8]) {
    let Ok(survey) = journal::survey(data) else {
        return;
    };
    for found in survey.frames {
        assert!(found.header.group <= survey.begun);
        assert!(
            found
                .lines
                .is_none_or(|lines| lines.len() == found.header.len as usize)
        );
    }
}

/// The file that says which losses were accepted.
pub fn accepted_losses(data: &[u8]) {
    accepted::decode_any(data);
}
