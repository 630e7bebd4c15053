//! The tree and its proofs, against the definition and the vectors of certificate transparency.

use std::convert::Infallible;

use proptest::prelude::*;

use super::log::{Tree, at, root_of};
use crate::tree::{consistency, inclusion, peaks, root, subtree};
use crate::{
    Frontier, Hash, Nodes, ProofError, TreeError, empty_hash, leaf_hash, node_hash, verify_consistency,
    verify_inclusion,
};

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hash(hex: &str) -> Hash {
    Hash(unhex(hex).try_into().unwrap())
}

/// The leaves of the tests of the `certificate-transparency` project.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOT_OF_8: &str = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328";

fn published() -> Tree {
    Tree::of(LEAVES.map(|leaf| leaf_hash(&unhex(leaf))))
}

#[test]
fn the_published_tree_has_its_roots_and_proofs() {
    let mut tree = published();
    assert_eq!(tree.frontier.root(), hash(ROOT_OF_8));
    let first = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
    assert_eq!(root(&mut tree, 1), Ok(hash(first)));
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(root(&mut tree, 0), Ok(hash(empty)));
    let six_to_eight = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ];
    assert_eq!(consistency(&mut tree, 6, 8), Ok(six_to_eight.map(hash).to_vec()));
    let two_to_five = [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ];
    assert_eq!(consistency(&mut tree, 2, 5), Ok(two_to_five.map(hash).to_vec()));
    for size in 0..=8_u64 {
        assert_eq!(root(&mut tree, size), Ok(root_of(&tree.leaves[..at(size)])));
    }
}

/// PATH of RFC 9162, section 2.1.3.1, word for word.
fn path_of(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    let (mut path, beside) = if m < k {
        (path_of(m, left), root_of(right))
    } else {
        (path_of(m - k, right), root_of(left))
    };
    path.push(beside);
    path
}

/// SUBPROOF of RFC 9162, section 2.1.4.1, word for word.
fn subproof_of(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![root_of(leaves)] };
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    let (mut proof, beside) = if m <= k {
        (subproof_of(m, left, whole), root_of(right))
    } else {
        (subproof_of(m - k, right, false), root_of(left))
    };
    proof.push(beside);
    proof
}

#[test]
fn small_trees_have_all_proofs_of_the_definition() {
    let mut tree = Tree::sized(40);
    for size in 1..=40 {
        let leaves = tree.leaves[..at(size)].to_vec();
        let whole = root_of(&leaves);
        for index in 0..size {
            let path = inclusion(&mut tree, index, size).unwrap();
            assert_eq!(path, path_of(at(index), &leaves), "{index} {size}");
            assert_eq!(
                verify_inclusion(&leaves[at(index)], index, size, &path, &whole),
                Ok(())
            );
        }
        for first in 1..=size {
            let path = consistency(&mut tree, first, size).unwrap();
            assert_eq!(path, subproof_of(at(first), &leaves, true), "{first} {size}");
            let earlier = root_of(&leaves[..at(first)]);
            assert_eq!(verify_consistency(first, &earlier, size, &whole, &path), Ok(()));
        }
    }
}

#[test]
fn the_tree_without_leaves_is_the_beginning_of_each() {
    let mut tree = Tree::sized(3);
    let (whole, empty) = (tree.frontier.root(), empty_hash());
    assert_eq!(consistency(&mut tree, 0, 3), Ok(vec![]));
    assert_eq!(consistency(&mut tree, 3, 3), Ok(vec![]));
    let check = |first, first_root: &Hash, second, second_root: &Hash, path: &[Hash]| {
        verify_consistency(first, first_root, second, second_root, path)
    };
    assert_eq!(check(0, &empty, 3, &whole, &[]), Ok(()));
    assert_eq!(check(0, &empty, 0, &empty, &[]), Ok(()));
    assert_eq!(check(3, &whole, 3, &whole, &[]), Ok(()));
    assert_eq!(check(0, &whole, 3, &whole, &[]), Err(ProofError::FirstRoot));
    assert_eq!(check(0, &empty, 0, &whole, &[]), Err(ProofError::Fork));
    assert_eq!(check(0, &empty, 3, &whole, &[whole]), Err(ProofError::TooLong));
    assert_eq!(check(3, &whole, 3, &whole, &[whole]), Err(ProofError::TooLong));
    assert_eq!(check(3, &whole, 3, &empty, &[]), Err(ProofError::Fork));
    assert_eq!(check(2, &whole, 3, &empty, &[]), Err(ProofError::TooShort));
    let beyond = ProofError::FirstBeyondSecond { first: 4, second: 3 };
    assert_eq!(check(4, &whole, 3, &whole, &[]), Err(beyond));
    let beyond = ProofError::IndexBeyond { index: 0, size: 0 };
    assert_eq!(verify_inclusion(&whole, 0, 0, &[], &empty), Err(beyond));
    assert_eq!(verify_inclusion(&whole, 0, 1, &[], &whole), Ok(()));
}

#[test]
fn nothing_is_proven_of_what_is_beyond_or_missing() {
    let mut tree = Tree::sized(600);
    for size in [1 << 63, u64::MAX] {
        assert_eq!(peaks(&mut tree, size), Err(TreeError::Beyond));
        assert_eq!(consistency(&mut tree, 5, size), Err(TreeError::Beyond));
        assert_eq!(inclusion(&mut tree, 5, size), Err(TreeError::Beyond));
    }
    assert_eq!(inclusion(&mut tree, 600, 600), Err(TreeError::Beyond));
    assert_eq!(inclusion(&mut tree, 0, 0), Err(TreeError::Beyond));
    assert_eq!(consistency(&mut tree, 6, 5), Err(TreeError::Beyond));
    for (level, index) in [
        (64, 0),
        (63, 0),
        (255, 0),
        (8, u64::MAX),
        (0, u64::MAX),
        (9, 1 << 54),
    ] {
        assert_eq!(subtree(&mut tree, level, index), Err(TreeError::Beyond));
    }
    let missing = |level, from, until| TreeError::MissingNodes { level, from, until };
    assert_eq!(root(&mut tree, 601), Err(missing(0, 512, 601)));
    tree.stored.remove(&(8, 1));
    assert_eq!(root(&mut tree, 600), Err(missing(8, 0, 2)));
    let text = missing(8, 0, 2).to_string();
    assert_eq!(text, "of level 8 not all nodes from 0 until 2 are there");
}

#[test]
fn a_proof_reads_few_hashes_of_a_large_tree() {
    let size = 70_000;
    let mut tree = Tree::sized(size);
    assert_eq!(tree.stored.keys().filter(|(level, _)| *level == 16).count(), 1);
    let whole = tree.frontier.root();
    assert_eq!(whole, root_of(&tree.leaves));
    for index in [0, 255, 256, 40_000, 65_535, 65_536, 69_999] {
        tree.read = 0;
        let path = inclusion(&mut tree, index, size).unwrap();
        assert!(tree.read <= 256 * 6, "{}", tree.read);
        let leaf = tree.leaves[at(index)];
        assert_eq!(verify_inclusion(&leaf, index, size, &path, &whole), Ok(()));
        tree.read = 0;
        let path = consistency(&mut tree, index + 1, size).unwrap();
        assert!(tree.read <= 256 * 7, "{}", tree.read);
        let earlier = root_of(&tree.leaves[..=at(index)]);
        assert_eq!(
            verify_consistency(index + 1, &earlier, size, &whole, &path),
            Ok(())
        );
    }
    assert_eq!(subtree(&mut tree, 16, 0), Ok(root_of(&tree.leaves[..65_536])));
    assert_eq!(subtree(&mut tree, 11, 3), Ok(root_of(&tree.leaves[6144..8192])));
}

/// Each way in which a proof is nearly this one.
fn nearly(path: &[Hash], bit: usize) -> Vec<Vec<Hash>> {
    let mut others = vec![[path, &[empty_hash()]].concat(), [&[empty_hash()], path].concat()];
    for place in 0..path.len() {
        let mut flipped = path.to_vec();
        flipped[place].0[bit / 8] ^= 1 << (bit % 8);
        let mut short = path.to_vec();
        short.remove(place);
        others.extend([flipped, short]);
    }
    others
}

/// Two sizes, more often than not around where a stored node is full.
fn sizes() -> impl Strategy<Value = (u64, u64)> {
    let second = prop_oneof![1..=600_u64, 250..=260_u64, 508..=516_u64];
    second.prop_flat_map(|second| (1..=second, Just(second)))
}

proptest! {
    #[test]
    fn a_leaf_is_proven_by_its_path_and_no_other((nth, size) in sizes(), bit in 0..256_usize) {
        let mut tree = Tree::sized(size);
        let (index, whole) = (nth - 1, tree.frontier.root());
        let leaf = tree.leaves[at(index)];
        let path = inclusion(&mut tree, index, size).unwrap();
        prop_assert_eq!(&path, &path_of(at(index), &tree.leaves));
        prop_assert_eq!(verify_inclusion(&leaf, index, size, &path, &whole), Ok(()));
        for other in nearly(&path, bit) {
            prop_assert!(verify_inclusion(&leaf, index, size, &other, &whole).is_err());
        }
        let mut changed = leaf;
        changed.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion(&changed, index, size, &path, &whole).is_err());
        for other in (0..size).filter(|other| *other != index) {
            prop_assert!(verify_inclusion(&leaf, other, size, &path, &whole).is_err());
        }
        prop_assert!(verify_inclusion(&node_hash(&leaf, &leaf), index, size, &path, &whole).is_err());
    }

    #[test]
    fn a_tree_goes_on_by_its_proof_and_no_other((first, second) in sizes(), bit in 0..256_usize) {
        let mut tree = Tree::sized(second);
        let (earlier, later) = (root_of(&tree.leaves[..at(first)]), tree.frontier.root());
        let path = consistency(&mut tree, first, second).unwrap();
        prop_assert_eq!(&path, &subproof_of(at(first), &tree.leaves, true));
        prop_assert_eq!(verify_consistency(first, &earlier, second, &later, &path), Ok(()));
        for other in nearly(&path, bit) {
            prop_assert!(verify_consistency(first, &earlier, second, &later, &other).is_err());
        }
        let mut changed = earlier;
        changed.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_consistency(first, &changed, second, &later, &path).is_err());
        prop_assert!(verify_consistency(first, &earlier, second, &changed, &path).is_err());
    }

    #[test]
    fn the_right_edge_is_the_same_however_it_is_made((first, second) in sizes()) {
        let mut tree = Tree::sized(second);
        let read = peaks(&mut tree, first).unwrap();
        let mut frontier = Frontier::from_peaks(first, read).unwrap();
        prop_assert_eq!(frontier.root(), root_of(&tree.leaves[..at(first)]));
        for leaf in &tree.leaves[at(first)..] {
            frontier.push(*leaf, &mut |_, _, _| {});
        }
        prop_assert_eq!(&frontier, &tree.frontier);
        prop_assert_eq!(frontier.root(), root_of(&tree.leaves));
        prop_assert_eq!(peaks(&mut tree, second).unwrap(), frontier.peaks());
        prop_assert_eq!(root(&mut tree, second), Ok(frontier.root()));
    }

    #[test]
    fn no_answers_of_a_store_break_a_proof(
        (first, second) in (any::<u64>(), any::<u64>()),
        level in any::<u8>(),
        lengths in proptest::collection::vec(0..300_usize, 1..5),
    ) {
        let mut odd = Odd(lengths);
        let _ = peaks(&mut odd, second);
        let _ = inclusion(&mut odd, first, second);
        let _ = consistency(&mut odd, first, second);
        let _ = subtree(&mut odd, level, first);
        let path = vec![empty_hash(); at(first % 70)];
        let _ = verify_inclusion(&empty_hash(), first, second, &path, &empty_hash());
        let _ = verify_consistency(first, &empty_hash(), second, &empty_hash(), &path);
    }
}

/// Answers as it likes; with nothing to say it says what is asked for.
struct Odd(Vec<usize>);

impl Nodes for Odd {
    type Error = Infallible;
    fn leaves(&mut self, from: u64, until: u64) -> Result<Vec<Hash>, Infallible> {
        let length = self.0.pop().filter(|length| length % 7 == 0);
        Ok(vec![empty_hash(); length.unwrap_or(at(until - from))])
    }
    fn stored(&mut self, _: u8, from: u64, until: u64) -> Result<Vec<Hash>, Infallible> {
        self.leaves(from, until)
    }
}
