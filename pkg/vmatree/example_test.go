package vmatree_test

import (
	"fmt"

	"sentrymm/pkg/vmatree"
)

// A mapping shows a part of a file, from off on.
type mapping struct {
	file string
	off  uint64
}

// mappings tells how mappings are cut, and which of them are one.
type mappings struct{}

func (mappings) Split(r vmatree.Range, m mapping, at uint64) (left, right mapping) {
	return m, mapping{m.file, m.off + at - r.Start}
}

func (mappings) Merge(l vmatree.Range, lm mapping, r vmatree.Range, rm mapping) (mapping, bool) {
	return lm, lm.file == rm.file && lm.off+l.Len() == rm.off
}

// A range in the middle of a mapping is replaced. Whoever looks at the tree sees it
// before or after, never with a hole.
func Example() {
	var tree vmatree.Tree[mapping, struct{}]
	show := func(name string, s vmatree.Snapshot[mapping, struct{}]) {
		fmt.Println(name)
		for r, m := range s.All() {
			fmt.Printf("  %v %s+%x\n", r, m.file, m.off)
		}
	}

	x := tree.Begin(mappings{})
	x.Insert(vmatree.Range{Start: 0x1000, End: 0x5000}, mapping{"libc", 0})
	before := tree.Commit(x)

	x = tree.Begin(mappings{})
	where := vmatree.Range{Start: 0x2000, End: 0x3000}
	old := x.Detach(where)
	x.InsertMerged(where, mapping{"heap", 0})
	show("while it is edited:", tree.Snapshot())
	tree.Commit(x)
	show("afterwards:", tree.Snapshot())
	show("a snapshot never changes:", before)

	fmt.Println("taken out:", old.At(0).Range, old.At(0).Value.file)
	gap, _ := tree.Snapshot().LastGap(vmatree.Range{Start: 0x1000, End: 0x10000}, 0x1000)
	fmt.Println("free:", gap)

	// Output:
	// while it is edited:
	//   1000-5000 libc+0
	// afterwards:
	//   1000-2000 libc+0
	//   2000-3000 heap+0
	//   3000-5000 libc+2000
	// a snapshot never changes:
	//   1000-5000 libc+0
	// taken out: 2000-3000 libc
	// free: 5000-10000
}
