package vmatree

import "sync/atomic"

// A Tree is an ordered map from disjoint ranges to values that is read without
// locks and edited by transactions. The zero value is an empty tree with a zero
// M.
//
// M is whatever a writer publishes together with the ranges, such as counters:
// a reader that takes both from one Snapshot never sees them disagree. It is
// struct{} where there is nothing of the kind.
//
// All methods may be called at any time from any goroutine. Only one of several
// transactions that began on the same version can be committed: writers
// serialise themselves, usually with a mutex held from Begin to Commit.
//
// A Tree must not be copied after first use.
type Tree[V, M any] struct {
	current atomic.Pointer[version[V, M]]
	reuse   reuse[V, M]
}

// A version is one state of a tree. The versions that snapshots and trees point
// to are immutable, and so is every node beneath; the one inside a Txn is not.
type version[V, M any] struct {
	root  *node // nil if there are no entries
	count int
	ended bool // it belonged to a Txn that was committed, or is to be used again
	meta  M
	sight sight
}

// Snapshot returns the current version. It waits for nobody: it marks the version, and tries again if there was
// a commit in that very moment.
func (t *Tree[V, M]) Snapshot() Snapshot[V, M] {
	return t.take(t.current.Load())
}

// take returns a snapshot of v, which was current just now, or else of a later version.
func (t *Tree[V, M]) take(v *version[V, M]) Snapshot[V, M] {
	for v != nil {
		owner := v.sight.owner.Load()
		v.sight.mark(owner)
		if t.isCurrent(v, owner) {
			break
		}
		v = t.current.Load()
	}
	return Snapshot[V, M]{reads[V, M]{v}}
}

// isCurrent returns whether v is current, and is the version that owner made. It may not be any more by the time that is known.
func (t *Tree[V, M]) isCurrent(v *version[V, M], owner uint64) bool {
	return t.current.Load() == v && v.sight.owner.Load() == owner
}

// Begin opens a transaction on the current version. It allocates the Txn and
// copies nothing. p may be nil if the transaction never cuts or merges values.
func (t *Tree[V, M]) Begin(p Policy[V]) *Txn[V, M] {
	return t.Snapshot().Begin(p)
}

// Commit publishes what x has made: one atomic store, after which every new
// Snapshot sees all of it. It returns the version it published and ends x: any
// later use of x panics.
//
// Panics if the tree's current version is not the one that x began on. Then
// nothing is published, and x goes on as it was.
func (t *Tree[V, M]) Commit(x *Txn[V, M]) Snapshot[V, M] {
	x.mustLive()
	made := x.made()
	if !t.current.CompareAndSwap(x.base, made) {
		panic("vmatree: Commit: the tree has changed since the transaction began")
	}
	if x.tree == t {
		t.reuse.committed(x.base, made, x.replaced)
	}
	x.end()
	return Snapshot[V, M]{reads[V, M]{made}}
}

// Publish makes s, whatever it was taken or frozen from, the current version:
// one atomic store. With an earlier snapshot of t this is a rollback.
// Transactions that began on another version can no longer be committed.
func (t *Tree[V, M]) Publish(s Snapshot[V, M]) {
	t.current.Store(s.v)
}

// A Snapshot is one version of a tree: it never changes, whatever happens to the
// tree. It is a value the size of a pointer. All methods may be called at any
// time from any goroutine. The zero value is an empty snapshot.
//
// A snapshot keeps the nodes that it reaches, and so their values, from being
// collected. It shares with its neighbours in time all the nodes that were not
// edited in between.
type Snapshot[V, M any] struct {
	reads[V, M]
}

// Begin opens a transaction on s, which need not be current. It costs what
// Tree.Begin costs. Any number of transactions may begin on one snapshot and be
// edited at the same time, each by its own goroutine.
func (s Snapshot[V, M]) Begin(p Policy[V]) *Txn[V, M] {
	x := new(Txn[V, M])
	x.begin(s.v, p)
	return x
}

// begin makes x a transaction on v.
func (x *Txn[V, M]) begin(v *version[V, M], p Policy[V]) {
	*x = Txn[V, M]{policy: p, base: v, owner: newOwner()}
	if v != nil {
		v.mustLive()
		x.now.root, x.now.count, x.now.meta = v.root, v.count, v.meta
	}
	x.v = &x.now
}

// Same tells whether s and o are the very same version: taken from a tree
// between the same two commits, or copies of one another. Two versions with
// equal contents are not the same.
func (s Snapshot[V, M]) Same(o Snapshot[V, M]) bool {
	return s.v == o.v
}
