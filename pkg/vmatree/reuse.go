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

// A sight says whether there may be a snapshot of a version. It is not a part of it, so that remembering it keeps no
// nodes.
type sight struct {
	owner uint64 // of the transaction that made the version
	seen  atomic.Bool
}

// reuse is the part of a Tree that belongs to the one transaction of BeginAlone.
type reuse[V, M any] struct {
	txn Txn[V, M]

	// last is what the last of these transactions did.
	last commit[V, M]

	// seen is the last owner of a node that a snapshot may reach.
	seen uint64

	// leaves and inner are nodes to be used.
	leaves, inner nodes
}

// A commit made one version from another, and replaced some of its nodes. The version before may yet be published
// again: so nothing happens to them until the next transaction begins.
type commit[V, M any] struct {
	from     *sight // nil: from nothing
	made     *version[V, M]
	replaced nodes
}

// mostSpare is how many nodes of a kind are kept. A commit replaces one node per level, and another one where
// something is merged across the edge of a leaf.
const mostSpare = 4

// nodes are some nodes.
type nodes struct {
	n  int
	at [mostSpare]*node
}

func (s *nodes) push(n *node) {
	if s.n < mostSpare {
		s.at[s.n] = n
		s.n++
	}
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
// memory of earlier versions of t, those that no Snapshot was taken of, and makes little garbage. What Peek or Commit
// returned before must not be used after the call.
func (t *Tree[V, M]) BeginAlone(p Policy[V]) *Txn[V, M] {
	r := &t.reuse
	x := &r.txn
	x.begin(t.current.Load(), p)
	x.tree = t
	r.collect(x)
	return x
}

// collect makes what the last commit replaced available to x, as far as nobody can see it.
func (r *reuse[V, M]) collect(x *Txn[V, M]) {
	last := r.last
	r.last = commit[V, M]{made: last.made}
	switch {
	case last.made != x.base:
		r.seen = x.owner - 1 // others have committed, or published: all nodes there are
		return
	case last.from != nil && last.from.seen.Load():
		r.seen = last.from.owner
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

// copyLeaf and copyInner return a copy of a node that the transaction replaces.

func (x *Txn[V, M]) copyLeaf(from *leaf[V]) *leaf[V] {
	var l *leaf[V]
	if x.tree != nil {
		l = asLeaf[V](x.tree.reuse.leaves.pop())
		x.replaced.push(&from.node)
	}
	if l == nil {
		l = new(leaf[V])
	}
	*l = *from
	return l
}

func (x *Txn[V, M]) copyInner(from *inner) *inner {
	var in *inner
	if x.tree != nil {
		in = asInner(x.tree.reuse.inner.pop())
		x.replaced.push(&from.node)
	}
	if in == nil {
		in = new(inner)
	}
	*in = *from
	return in
}
