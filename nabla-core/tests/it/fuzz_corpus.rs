//! The fuzz targets' corpus, through the same checks, so that every test run covers what fuzzing has found.

use crate::common::checks;
use std::{fs, path::Path};

/// Every file of a target's corpus; none is no corpus.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |path: &Path| (path.display().to_string(), fs::read(path).unwrap());
    let files: Vec<_> = files.map(|entry| read(&entry.unwrap().path())).collect();
    assert!(files.len() >= 10, "only {} files in {}", files.len(), folder.display());
    files
}

#[test]
fn corpus_of_image_keeps_the_invariants() {
    let results: Vec<_> = corpus("image").iter().map(|(_, file)| checks::image(file).is_ok()).collect();
    assert!(results.contains(&true) && results.contains(&false));
}

#[test]
fn corpus_of_manifest_keeps_the_invariants() {
    let results: Vec<_> = corpus("manifest").iter().map(|(_, file)| checks::manifest(file).is_ok()).collect();
    assert!(results.contains(&true) && results.contains(&false));
}

#[test]
fn corpus_stays_small() {
    let sizes: Vec<usize> =
        ["image", "manifest"].iter().flat_map(|t| corpus(t)).map(|(_, file)| file.len()).collect();
    assert!(sizes.iter().all(|&size| size < 16 << 10));
    assert!(sizes.iter().sum::<usize>() < 300 << 10);
}
