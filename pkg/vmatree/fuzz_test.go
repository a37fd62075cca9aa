package vmatree

import (
	"encoding/binary"
	"testing"
)

// bytesSource makes numbers of data, as many bytes for each as its size asks for,
// and zeros when there are no more.
type bytesSource struct{ data []byte }

func (b *bytesSource) next(n uint64) uint64 {
	var word [8]byte
	size := 1
	switch {
	case n > 1<<16:
		size = 8
	case n > 1<<8:
		size = 2
	}
	b.data = b.data[copy(word[:size], b.data):]
	return binary.LittleEndian.Uint64(word[:]) % n
}

// FuzzEdits makes the edits that data says, and compares all reads with the model
// after each. The first byte chooses the size of the tree and of the ranges.
func FuzzEdits(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<10 {
			t.Skip("more of the same")
		}
		src := &bytesSource{data}
		var k *machine
		switch src.next(5) {
		case 0:
			k = newMachine(t, 64, 4, src.next)
		case 1:
			k = newMachine(t, 4000, 30, src.next)
		case 2:
			k = newMachine(t, end, 1<<60, src.next)
		case 3:
			k = prefilled(t, 4*leafMax)
		case 4:
			k = prefilled(t, 2*leafMax*innerMax)
		}
		k.next = src.next
		for len(src.data) > 0 {
			k.step()
			k.check()
		}
		for _, v := range k.versions {
			if d := differs(v.s, v.m); d != "" {
				t.Fatalf("a kept version: %s", d)
			}
		}
	})
}

// prefilled returns a machine with n entries of 6 bytes, 10 bytes apart.
func prefilled(t testing.TB, n int) *machine {
	k := newMachine(t, uint64(n)*10, 20, nil)
	for i := range uint64(n) {
		r, v := Range{i*10 + 2, i*10 + 8}, span{0, i}
		k.x.Insert(r, &v)
		k.m = append(k.m, Entry[span]{r, v})
	}
	k.begin(k.record(k.tree.Commit(k.x)))
	return k
}

// FuzzSearch compares the searches of a tree with the model. Each two bytes of data
// are the gap before an entry and its length, in units of 1<<shift bytes.
func FuzzSearch(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte, shift uint8, addr, start, length, n uint64) {
		if len(data) > 1<<13 || n == 0 {
			t.Skip("more of the same, or not allowed")
		}
		x := Snapshot[*span, int]{}.Begin(spans{t})
		var m model
		var last uint64
		for ; len(data) >= 2; data = data[2:] {
			r := Range{Start: last + uint64(data[0])<<(shift%57)}
			r.End = r.Start + uint64(data[1])<<(shift%57)
			if r.Start < last || r.End <= r.Start {
				break // past the end of the address space, or empty
			}
			v := span{len(m), r.Start}
			x.Insert(r, &v)
			m = append(m, Entry[span]{r, v})
			last = r.End
		}
		if d := differs(x, m); d != "" {
			t.Fatal(d)
		}
		r := Range{start, start + min(length, end-start)}
		if d := differsAt(x, m, addr, r, n); d != "" {
			t.Fatal(d)
		}
	})
}
