// Package vmatree is an ordered map from disjoint address ranges to values, which
// is edited in transactions and read without locks.
//
// It is a persistent B+tree. A [Tree] points to an immutable version; a [Snapshot]
// is one such version, taken without a lock, and never changes. A [Txn]
// begins on a version and copies the nodes that it edits, once each: its own nodes
// it edits in place. [Tree.Commit] makes the result current with one atomic store.
// So a reader sees all of a transaction or nothing of it, and waits for nobody; an
// edit that turns out to be impossible is dropped, and nothing has happened.
//
// [Txn.Detach] takes everything in a range out of a transaction's tree and hands it
// to the caller: the first step of a munmap, or of an mmap(MAP_FIXED). How values
// are cut at the edges of a range, and which neighbours may become one, is up to
// the caller's [Policy].
//
// Every inner node knows of each child where its entries begin and end, the longest
// gap between them, and how many bytes they cover. So the lowest or highest gap of
// some length inside some bounds, and the bytes covered in a range, are found in
// O(log n).
//
// # Concurrency
//
// Trees and snapshots may be used by any number of goroutines at once. A
// transaction belongs to one goroutine. Transactions that began on the same version
// do not disturb each other, but only one of them can be committed to the tree it
// came from: writers take turns, by a lock of their own.
//
// Values are shared between the versions, so they must not change once they are in a
// tree that others read: to change one, put a new one in its place with
// [Txn.Update] or [Txn.Replace].
//
// A transaction that is neither frozen nor committed ends up owning all its nodes. It
// is then an ordinary B+tree that is edited in place, for a single owner that
// needs no snapshots.
package vmatree
