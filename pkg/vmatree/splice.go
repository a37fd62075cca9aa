package vmatree

// splice replaces the slots [i, j) of p's leaf with repl: the one edit that all
// others are made of. It may add one entry at most to the leaf. Afterwards p
// leads nowhere.
//
// Preconditions: repl is in order and fits between the entries around the slots.
func (x *Txn[V, M]) splice(p *path[V], i, j int, repl []Entry[V]) {
	x.now.count += len(repl) - (j - i)
	n := int(p.leaf.n) + len(repl) - (j - i)
	if n == 0 {
		x.dropLeaf(p)
		return
	}
	x.ownPath(p)
	if n <= leafMax {
		p.leaf.splice(i, j, repl)
		x.settle(p, p.depth-1)
		return
	}
	left := p.leaf
	right := x.splitLeaf(left, i)
	if at := int(left.n); i < at {
		left.splice(i, j, repl)
	} else {
		right.splice(i-at, j-at, repl)
	}
	x.grow(p, &right.node)
}

func (l *leaf[V]) splice(i, j int, repl []Entry[V]) {
	switch d := len(repl) - (j - i); {
	case d > 0:
		l.open(j, d)
	case d < 0:
		l.close(j+d, j)
	}
	for k, e := range repl {
		l.entries[i+k] = e
	}
}

// dropLeaf takes p's leaf out of the tree. The leaf itself is not written to, so
// taking out whole leaves copies none of them.
func (x *Txn[V, M]) dropLeaf(p *path[V]) {
	x.leave(&p.leaf.node)
	if p.depth == 0 {
		x.now.root = nil
		return
	}
	x.ownInner(p)
	s := p.steps[p.depth-1]
	s.in.close(s.i, s.i+1)
	x.settle(p, p.depth-2)
}

// splitAt returns where to split a full node of n slots that has min slots at
// least and is about to grow at slot i.
//
// A node that grows at its end is probably being filled in address order: it
// stays as full as it may, and the other way round for one that grows at its
// start. Otherwise each side gets half.
func splitAt(i, n, min int) int {
	switch i {
	case n:
		return n + 1 - min
	case 0, 1: // 1, because what grows an inner node comes after its first child
		return min - 1
	}
	return n / 2
}

// splitLeaf moves the upper part of the full leaf l, which is about to grow at
// slot i, into a new one. If i is not below l.n then, the growth belongs there.
func (x *Txn[V, M]) splitLeaf(l *leaf[V], i int) *leaf[V] {
	n := int(l.n)
	at := splitAt(i, n, leafMin)
	right := x.newLeaf()
	right.n = uint16(n - at)
	right.copyFrom(0, l, at, n)
	l.close(at, n)
	return right
}

// splitInner is splitLeaf for an inner node.
func (x *Txn[V, M]) splitInner(in *inner, i int) *inner {
	n := int(in.n)
	at := splitAt(i, n, innerMin)
	right := x.newInner(in.level)
	right.n = uint16(n - at)
	right.copyFrom(0, in, at, n)
	in.close(at, n)
	return right
}

// grow puts right, which was split off p's leaf, into the tree, and brings the
// inner nodes of p up to date.
func (x *Txn[V, M]) grow(p *path[V], right *node) {
	for d := p.depth - 1; d >= 0; d-- {
		in, i := p.steps[d].in, p.steps[d].i
		setKid[V](in, i, in.kids[i])
		i++
		if in.n < innerMax {
			in.open(i, 1)
			setKid[V](in, i, right)
			x.settle(p, d-1)
			return
		}
		split := x.splitInner(in, i)
		into := in
		if at := int(in.n); i >= at {
			into, i = split, i-at
		}
		into.open(i, 1)
		setKid[V](into, i, right)
		right = &split.node
	}
	root := x.newInner(right.level + 1)
	root.n = 2
	setKid[V](root, 0, x.now.root)
	setKid[V](root, 1, right)
	x.now.root = &root.node
}

// settle brings the inner nodes of p, from step d up, up to date with what has
// become of the child below, and lowers the root if it can.
func (x *Txn[V, M]) settle(p *path[V], d int) {
	for ; d >= 0; d-- {
		in, i := p.steps[d].in, p.steps[d].i
		if in.kids[i].underfull() {
			x.refill(in, i)
		} else if !setKid[V](in, i, in.kids[i]) {
			// All above knows of the child is as it was.
			return
		}
	}
	for root := x.now.root; root.level != 0 && root.n == 1; root = x.now.root {
		x.now.root = asInner(root).kids[0]
	}
}

// refill makes child i of in, which is below its minimum, full enough, together
// with a neighbour: one of the two is left, or both, with half of the slots each.
// There is a neighbour: inner nodes have two children at least.
func (x *Txn[V, M]) refill(in *inner, i int) {
	i = max(i, 1) - 1
	a := x.own(in.kids[i])
	joined := false
	if a.level == 0 {
		joined = x.balanceLeaves(in, i, asLeaf[V](a))
	} else {
		joined = x.balanceInner(in, i, asInner(a))
	}
	setKid[V](in, i, a)
	if joined {
		in.close(i+1, i+2)
	} else {
		setKid[V](in, i+1, in.kids[i+1])
	}
}

// balanceLeaves moves all entries of child i+1 of in to child i, which is a and
// is owned, and returns true; or, if that made it too full, evens them out.
func (x *Txn[V, M]) balanceLeaves(in *inner, i int, a *leaf[V]) bool {
	b := asLeaf[V](in.kids[i+1])
	na, nb := int(a.n), int(b.n)
	if na+nb <= leafJoin {
		a.n += b.n
		a.copyFrom(na, b, 0, nb)
		return true
	}
	in.kids[i+1] = x.own(&b.node)
	b = asLeaf[V](in.kids[i+1])
	if k := (na+nb)/2 - na; k > 0 {
		a.n += uint16(k)
		a.copyFrom(na, b, 0, k)
		b.close(0, k)
	} else {
		k = -k
		b.open(0, k)
		b.copyFrom(0, a, na-k, na)
		a.close(na-k, na)
	}
	return false
}

// balanceInner is balanceLeaves for inner nodes.
func (x *Txn[V, M]) balanceInner(in *inner, i int, a *inner) bool {
	b := asInner(in.kids[i+1])
	na, nb := int(a.n), int(b.n)
	if na+nb <= innerJoin {
		a.n += b.n
		a.copyFrom(na, b, 0, nb)
		return true
	}
	in.kids[i+1] = x.own(&b.node)
	b = asInner(in.kids[i+1])
	if k := (na+nb)/2 - na; k > 0 {
		a.n += uint16(k)
		a.copyFrom(na, b, 0, k)
		b.close(0, k)
	} else {
		k = -k
		b.open(0, k)
		b.copyFrom(0, a, na-k, na)
		a.close(na-k, na)
	}
	return false
}
