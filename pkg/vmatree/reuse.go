package vmatree

import "sync/atomic"

// What a commit replaces is garbage, most of the time at once: nobody has taken a snapshot of the version before. A
// writer who makes thousands of small commits a second would keep the collector busy with nothing else, and copy each
// node to memory that is in no cache. So a tree keeps some nodes of versions that nobody can see any more, and
// transactions that begin with BeginAlone make their copies in these.
//
// Who can see a version? While it is current, anybody may take a snapshot, which marks it as seen. Once it is not, nobody
// may who has not before. The two meet like this: a reader loads the current version, marks it, and looks whether it is
// still current; a writer makes another one current, and looks for the mark. Loads and stores of atomics are in one order, so
// either the reader finds the new version, and tries again, or the writer finds the mark.
//
// A node can be seen if one of the versions that reach it was. These are a row of versions, from the one whose
// transaction made it, which is the node's owner, to the one before it was replaced. So it is enough to
// remember the owner of the last version that was seen: older nodes are left to the collector, younger ones are used again.
//
// Versions are used again, too. Then a slow reader may mark one that has become another meanwhile, or is about to. So what he leaves there is not
// that it was seen, but which one was: the mark is the owner of the version that he found, and only grows. Afterwards he looks whether the
// version is current, and still has that owner: if so, it was current after he had marked it as that.

// A sight says which version this is, and whether there may be a snapshot of it.
type sight struct {
	owner atomic.Uint64 // of the transaction that made the version
	seen  atomic.Uint64 // the last owner that it had when somebody marked it
}

// mark marks the version as seen when it had that owner, which it may not have any more.
func (s *sight) mark(owner uint64) {
	for {
		seen := s.seen.Load()
		if seen >= owner || s.seen.CompareAndSwap(seen, owner) {
			return
		}
	}
}

// marked returns whether there may be a snapshot of the version.
//
// Preconditions: it is not current, or nobody else takes a snapshot.
func (s *sight) marked() bool { return s.seen.Load() >= s.owner.Load() }

// reuse is the part of a Tree that belongs to the one transaction of BeginAlone.
type reuse[V, M any] struct {
	txn Txn[V, M]

	// last is what the last of these transactions did.
	last commit[V, M]

	// seen is the last owner of a node that a snapshot may reach.
	seen uint64

	// leaves and inner are nodes to be used, and version is a version, or nil.
	leaves, inner nodes
	version       *version[V, M]
}

// A commit made one version from another, and replaced some of its nodes. The version before may yet be published
// again: so nothing happens to them until the next transaction begins.
type commit[V, M any] struct {
	from     *version[V, M] // nil: from nothing, or not kept
	made     *version[V, M]
	replaced nodes
}

// mostSpare is how many nodes of a kind are kept, and how many that a commit replaces. Most replace one node per level, and some more where
// something is merged across the edge of a leaf.
const mostSpare = 8

// nodes are some nodes.
type nodes struct {
	n    int
	at   [mostSpare]*node
	more bool // there were more
}

func (s *nodes) push(n *node) {
	if s.n == mostSpare {
		s.more = true
		return
	}
	s.at[s.n] = n
	s.n++
}

func (s *nodes) pop() *node {
	if s.n == 0 {
		return nil
	}
	s.n--
	n := s.at[s.n]
	s.at[s.n] = nil
	return n
}

// Peek returns the current version to a caller that holds a lock for as long as the snapshot is in use, which whoever
// commits to t has to hold as well, unless his transaction calls LeaveOld. Unlike Snapshot it does not keep the nodes from being used
// again, see BeginAlone.
func (t *Tree[V, M]) Peek() Snapshot[V, M] {
	return Snapshot[V, M]{reads[V, M]{t.current.Load()}}
}

// BeginAlone is Begin for a writer who is alone: until the transaction is committed or dropped, and for as long as it
// or the version that it began on is in use, nothing else edits t. In return the transaction copies nodes to
// memory of earlier versions of t, those that no Snapshot was taken of, and so does Commit with the version: a small edit makes no garbage. What Peek or Commit
// returned before must not be used after the call.
func (t *Tree[V, M]) BeginAlone(p Policy[V]) *Txn[V, M] {
	r := &t.reuse
	x := &r.txn
	x.begin(t.current.Load(), p)
	x.tree = t
	r.collect(x)
	return x
}

// committed notes a commit that made one version from another. If it replaced more nodes than are kept, all of them are left to the collector, and so is the version before:
// who has just unmapped everything may not come back soon.
func (r *reuse[V, M]) committed(from, made *version[V, M], replaced nodes) {
	if replaced.more && from != nil {
		r.seen = max(r.seen, from.sight.owner.Load())
		from, replaced = nil, nodes{}
	}
	r.last = commit[V, M]{from, made, replaced}
}

// collect makes what the last commit replaced available to x, as far as nobody can see it.
func (r *reuse[V, M]) collect(x *Txn[V, M]) {
	last := r.last
	r.last = commit[V, M]{made: last.made}
	from := last.from
	switch {
	case last.made != x.base:
		r.seen = x.owner - 1 // others have committed, or published: all nodes there are
		return
	case from == nil:
	case from.sight.marked():
		r.seen = from.sight.owner.Load()
	case from.sight.owner.Load() > r.seen:
		var none M
		from.root, from.meta, from.ended = nil, none, true
		r.version = from
	}
	for n := last.replaced.pop(); n != nil; n = last.replaced.pop() {
		if n.owner <= r.seen {
			continue
		}
		if n.level == 0 {
			l := asLeaf[V](n)
			clear(l.entries[:l.n])
			r.leaves.push(n)
		} else {
			in := asInner(n)
			clear(in.kids[:in.n])
			r.inner.push(n)
		}
		n.n = poisoned
	}
}

// LeaveOld says that what x replaces is to be left to the collector: the version before the commit may be in use by
// somebody who used Peek, and whom no lock keeps out.
func (x *Txn[V, M]) LeaveOld() {
	x.tree, x.replaced = nil, nodes{}
}

// poisoned is the number of slots of a spare node: whoever reads one by mistake panics.
const poisoned = ^uint16(0)

// spareVersion returns a version that nobody can see, or nil.
func (x *Txn[V, M]) spareVersion() *version[V, M] {
	if x.tree == nil {
		return nil
	}
	v := x.tree.reuse.version
	x.tree.reuse.version = nil
	return v
}

// leave notes that x has no use for n any more, if n is not its own.
func (x *Txn[V, M]) leave(n *node) {
	if x.tree != nil && n.owner != x.owner {
		x.replaced.push(n)
	}
}

// copyLeaf and copyInner return a copy of a node that the transaction replaces. They write only the slots in use: others hold no entries and no children, whether the
// node is new or a spare one.

func (x *Txn[V, M]) copyLeaf(from *leaf[V]) *leaf[V] {
	var l *leaf[V]
	if x.tree != nil {
		l = asLeaf[V](x.tree.reuse.leaves.pop())
	}
	if l == nil {
		l = new(leaf[V])
	}
	l.node = from.node
	l.copyFrom(0, from, 0, int(from.n))
	return l
}

func (x *Txn[V, M]) copyInner(from *inner) *inner {
	var in *inner
	if x.tree != nil {
		in = asInner(x.tree.reuse.inner.pop())
	}
	if in == nil {
		in = new(inner)
	}
	in.node = from.node
	in.copyFrom(0, from, 0, int(from.n))
	return in
}
