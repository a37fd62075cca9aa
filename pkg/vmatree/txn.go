package vmatree

import (
	"fmt"
	"sync/atomic"
)

// A Txn is a tree being edited. It begins with what its snapshot holds, and
// nobody else sees what becomes of it until it is committed or frozen. To give
// it up, drop it: there is nothing to undo.
//
// A Txn copies a node before it first writes to it, so an edit costs O(log n)
// and allocates one node per level, or fewer where an earlier edit was nearby.
// A Txn that is never frozen or committed comes to own all its nodes; then its
// edits allocate only when nodes split.
//
// A Txn is used by one goroutine. It must not be copied.
type Txn[V, M any] struct {
	reads[V, M] // of now

	now    version[V, M]  // what the edits have made so far
	base   *version[V, M] // where it began; Commit compares it
	policy Policy[V]

	// tree is set if nobody else edits it, and replaced are nodes that x has copied then.
	tree     *Tree[V, M]
	replaced nodes

	// owner is written into every node that this transaction makes, and is new
	// after each Freeze. No other transaction ever has the same one.
	owner uint64
}

// owners is the last owner that was given out. 0 is nobody.
var owners atomic.Uint64

func newOwner() uint64 {
	return owners.Add(1)
}

// own returns n if this transaction may write to it, and otherwise a copy that
// it may write to. The caller puts the result in n's place.
//
// This is the ownership rule, and every edit gets the nodes it writes to from
// here (or has just made them, as newLeaf and newInner do): a node may be
// written if this transaction made it and no frozen or committed version
// reaches it. The first half is that owner is the transaction's. The second
// follows: when a version is frozen, the transaction takes a new owner, and so
// gives up all it made; when one is committed, the transaction is over. As a
// node that is owned is only ever put below nodes that are owned, no
// older version can reach it from above either.
func (x *Txn[V, M]) own(n *node) *node {
	if n.owner == x.owner {
		return n
	}
	x.leave(n)
	var c *node
	if n.level == 0 {
		c = &x.copyLeaf(asLeaf[V](n)).node
	} else {
		c = &x.copyInner(asInner(n)).node
	}
	c.owner = x.owner
	return c
}

func (x *Txn[V, M]) newLeaf() *leaf[V] {
	l := new(leaf[V])
	l.owner = x.owner
	return l
}

func (x *Txn[V, M]) newInner(level uint16) *inner {
	in := new(inner)
	in.owner = x.owner
	in.level = level
	return in
}

// Freeze returns a snapshot of the present state. The transaction goes on; its
// later edits copy what the snapshot reaches. It allocates the snapshot's
// version and copies no nodes.
func (x *Txn[V, M]) Freeze() Snapshot[V, M] {
	x.mustLive()
	x.LeaveOld()
	made := x.made()
	if x.base != nil {
		x.base.sight.mark(x.base.sight.owner.Load()) // the snapshot reaches what is left of it
	}
	x.owner = newOwner()
	return Snapshot[V, M]{reads[V, M]{made}}
}

// made returns the present state as a version.
func (x *Txn[V, M]) made() *version[V, M] {
	made := x.spareVersion()
	if made == nil {
		made = new(version[V, M])
	}
	made.sight.owner.Store(x.owner)
	made.root, made.count, made.meta, made.ended = x.now.root, x.now.count, x.now.meta, false
	return made
}

// SetMeta sets what is published together with the ranges.
func (x *Txn[V, M]) SetMeta(m M) {
	x.mustLive()
	x.now.meta = m
}

// end makes every later use of x panic.
func (x *Txn[V, M]) end() {
	x.now.root, x.now.ended = nil, true
	x.policy, x.base, x.owner, x.replaced = nil, nil, 0, nodes{}
}

func (x *Txn[V, M]) mustLive() {
	x.now.mustLive()
}

func (v *version[V, M]) mustLive() {
	if v.ended {
		panic("vmatree: use of a transaction after its Commit, or of a version that is used again")
	}
}

// Insert adds the entry (r, v). It merges nothing. O(log n).
//
// Panics if r is empty or overlaps an entry; then nothing has changed.
func (x *Txn[V, M]) Insert(r Range, v V) {
	x.mustLive()
	var p path[V]
	x.seekHole(&p, r, "Insert")
	x.splice(&p, p.i, p.i, []Entry[V]{{r, v}})
}

// InsertMerged adds the entry (r, v), merges it with the entry that ends where
// it starts and then with the one that starts where it ends, as far as the
// policy allows, and returns what came of it. O(log n).
//
//	before      |---l---|         |---r---|
//	InsertMerged        |--- v ---|
//	after       |------------ lvr --------|
//
// Panics if r is empty or overlaps an entry; then nothing has changed, and the
// policy has not been asked.
func (x *Txn[V, M]) InsertMerged(r Range, v V) Entry[V] {
	x.mustLive()
	var p path[V]
	x.seekHole(&p, r, "InsertMerged")
	e := Entry[V]{r, v}
	i, j := p.i, p.i // what e replaces in the leaf
	if i > 0 && p.leaf.entries[i-1].End == r.Start {
		if l := p.leaf.entries[i-1]; x.merge(&l, &e, &e) {
			i--
		}
	}
	if next, ok := p.next(); ok && next.Start == r.End {
		if x.merge(&e, &next, &e) {
			if p.i < int(p.leaf.n) {
				j++
			} else {
				// The right neighbour is in the next leaf.
				x.remove(next.Start)
				x.seekStart(&p, r.Start)
				i -= j - p.i
				j = p.i
			}
		}
	}
	x.splice(&p, i, j, []Entry[V]{e})
	return e
}

// Update gives the entry that contains addr a new value. O(log n). Panics if
// there is none.
func (x *Txn[V, M]) Update(addr uint64, v V) {
	x.mustLive()
	var p path[V]
	x.seekEntry(&p, addr, "Update")
	// Summaries say nothing of values.
	x.ownPath(&p)
	p.leaf.entries[p.i].Value = v
}

// Replace gives r, an entry or a part of one, the value v: it cuts the entry at the edges of r, as the policy says, and merges
// what is at r then with its neighbours, as far as the policy allows, first with the one before and then with the one after.
// It is SplitAt at both edges, Update and MergeWithin, most of the time in one edit of one leaf. O(log n).
//
//	before      |-- l --|------- old ------|
//	Replace             |-- v --|
//	after       |------ lv -----|-- old> --|
//
// Panics if r is empty or does not lie in one entry; then nothing has changed, and the policy has not been asked.
func (x *Txn[V, M]) Replace(r Range, v V) {
	x.mustLive()
	var p path[V]
	x.seekEntry(&p, r.Start, "Replace")
	if old := p.leaf.entries[p.i].Range; r.Len() == 0 || r.End > old.End {
		panic(fmt.Sprintf("vmatree: Replace: %v is empty, or not in the entry %v", r, old))
	}
	if !x.replaceInLeaf(&p, r, v) {
		x.SplitAt(r.Start)
		x.SplitAt(r.End)
		x.Update(r.Start, v)
		x.MergeWithin(r)
	}
}

// replaceInLeaf is Replace for what concerns p's leaf alone, and makes one entry more of it at most. It does nothing for the rest, and returns false.
//
// Preconditions: p leads to the entry that contains r.
func (x *Txn[V, M]) replaceInLeaf(p *path[V], r Range, v V) bool {
	i, j := p.i, p.i+1
	n, old := int(p.leaf.n), p.leaf.entries[i]
	cutsLeft, cutsRight := old.Start < r.Start, r.End < old.End
	if cutsLeft && cutsRight || i == 0 && p.endBefore(i) == r.Start || j == n && p.startFrom(j) == r.End {
		return false
	}
	left, right := old, old // what touches r, if anything does
	switch {
	case cutsLeft:
		left, _ = x.cut(old, r.Start)
	case i > 0:
		left = p.leaf.entries[i-1]
	}
	switch {
	case cutsRight:
		_, right = x.cut(old, r.End)
	case j < n:
		right = p.leaf.entries[j]
	}
	parts := [3]Entry[V]{left, {r, v}, right}
	lo, hi := 1, 2 // those that go into the slots from i to j
	if left.End == r.Start {
		switch merged := x.merge(&parts[0], &parts[1], &parts[1]); {
		case merged && !cutsLeft:
			i--
		case cutsLeft && !merged:
			lo = 0
		}
	}
	if right.Start == r.End {
		switch merged := x.merge(&parts[1], &parts[2], &parts[1]); {
		case merged && !cutsRight:
			j++
		case cutsRight && !merged:
			hi = 3
		}
	}
	x.splice(p, i, j, parts[lo:hi])
	return true
}

// merge puts what l and r make together into both, if the policy allows it.
func (x *Txn[V, M]) merge(l, r, both *Entry[V]) bool {
	m, ok := x.policy.Merge(l.Range, l.Value, r.Range, r.Value)
	if ok {
		*both = Entry[V]{Range{l.Start, r.End}, m}
	}
	return ok
}

// Resize gives the entry that contains addr the range r, which may have any
// place between the entry's neighbours. The value stays; the policy is not
// asked. O(log n).
//
// Panics if there is no such entry, if r is empty, or if r does not fit between
// the neighbours; then nothing has changed.
func (x *Txn[V, M]) Resize(addr uint64, r Range) {
	x.mustLive()
	var p path[V]
	x.seekEntry(&p, addr, "Resize")
	if r.Len() == 0 {
		panic(fmt.Sprintf("vmatree: Resize: empty range %v", r))
	}
	e := p.leaf.entries[p.i]
	if r.Start < p.endBefore(p.i) || r.End > p.startFrom(p.i+1) {
		panic(fmt.Sprintf("vmatree: Resize: %v does not fit between the neighbours of %v", r, e.Range))
	}
	x.splice(&p, p.i, p.i+1, []Entry[V]{{r, e.Value}})
}

// SplitAt cuts the entry that has addr strictly inside in two, as the policy
// says. If there is none it does nothing. O(log n).
func (x *Txn[V, M]) SplitAt(addr uint64) {
	x.mustLive()
	var p path[V]
	if !x.seekEnd(&p, addr) || p.leaf.entries[p.i].Start >= addr {
		return
	}
	l, r := x.cut(p.leaf.entries[p.i], addr)
	x.splice(&p, p.i, p.i+1, []Entry[V]{l, r})
}

// cut asks the policy for the two parts of e.
func (x *Txn[V, M]) cut(e Entry[V], at uint64) (l, r Entry[V]) {
	lv, rv := x.policy.Split(e.Range, e.Value, at)
	return Entry[V]{Range{e.Start, at}, lv}, Entry[V]{Range{at, e.End}, rv}
}

// MergeWithin offers to the policy, in address order, each two neighbours that
// touch at an address in [r.Start, r.End], both edges included, and merges those
// that it allows. What a merge made is the left one of the next offer.
// O(k + m log n) for k entries of which m are merged into others.
func (x *Txn[V, M]) MergeWithin(r Range) {
	x.mustLive()
	// The first entry that may be the left one ends at r.Start or later.
	c := x.LowerBound(max(r.Start, 1) - 1)
	for c.Valid() {
		left := c.Entry()
		c.Next()
		if !c.Valid() || left.End > r.End {
			return
		}
		right := c.Entry()
		if left.End != right.Start {
			continue
		}
		m, ok := x.policy.Merge(left.Range, left.Value, right.Range, right.Value)
		if !ok {
			continue
		}
		x.join(left.Range, right.Range, m)
		c = x.LowerBound(left.Start)
	}
}

// join replaces the neighbours l and r by one entry with the value v.
func (x *Txn[V, M]) join(l, r Range, v V) {
	both := []Entry[V]{{Range{l.Start, r.End}, v}}
	var p path[V]
	x.seekEnd(&p, l.Start)
	if p.i+1 < int(p.leaf.n) {
		x.splice(&p, p.i, p.i+2, both)
		return
	}
	x.remove(r.Start)
	x.seekEnd(&p, l.Start)
	x.splice(&p, p.i, p.i+1, both)
}

// remove takes out the entry that contains addr, which exists.
func (x *Txn[V, M]) remove(addr uint64) {
	var p path[V]
	x.seekEnd(&p, addr)
	x.splice(&p, p.i, p.i+1, nil)
}
