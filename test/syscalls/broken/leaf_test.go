// 224 mappings of 1 MiB with alternating protections, and then one MAP_FIXED that covers the last leaf of
// the tree that the kernel keeps them in, and also merges to the left. Linux 6.1 to 6.11 lost the rest of
// the tree then. An application does not know where leaves begin, so every beginning is tried.
package broken

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

const mebibyte = 1 << 20

// A row is mappings of 1 MiB next to each other, readable and writable in turn.
type row struct {
	a *kit.Arena
	n int
}

func newRow(t *testing.T, n int) row {
	t.Helper()
	r := row{kit.NewArena(t, 226*mebibyte/kit.PageSize), n}
	r.mapFrom(t, 0)
	return r
}

func (r row) prot(i int) int {
	if i%2 == 0 {
		return unix.PROT_READ
	}
	return kit.RW
}

func (r row) at(i int) uintptr { return r.a.Base + uintptr(i)*mebibyte }

// put maps [from,to) anew, as one mapping.
func (r row) put(t *testing.T, from, to, prot int) {
	t.Helper()
	result := kit.Me.Mmap(r.at(from), uintptr(to-from)*mebibyte, prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_NORESERVE, -1, 0)
	require.Equal(t, kit.Result{Value: r.at(from)}, result)
}

// mapFrom maps all from i on as they were at first.
func (r row) mapFrom(t *testing.T, i int) {
	t.Helper()
	for ; i < r.n; i++ {
		r.put(t, i, i+1, r.prot(i))
	}
}

// check compares what is mapped with the row in which [from,to) has a protection of its own.
func (r row) check(t *testing.T, from, to, prot int) {
	t.Helper()
	var want []string
	start, last := 0, -1
	flush := func(end int) {
		if end > start && last >= 0 {
			want = append(want, fmt.Sprintf("%d-%d %s", start, end, perms(last)))
		}
		start = end
	}
	for i := range r.n {
		p := r.prot(i)
		if i >= from && i < to {
			p = prot
		}
		if p != last {
			flush(i)
			last = p
		}
	}
	flush(r.n)
	var got []string
	for _, l := range r.a.Maps(t, kit.Me) {
		got = append(got, fmt.Sprintf("%d-%d %s", (l.Start-r.a.Base)/mebibyte, (l.End-r.a.Base)/mebibyte, l.Perms))
	}
	require.Equal(t, want, got, "[%d,%d)", from, to)
}

func perms(prot int) string {
	return map[int]string{unix.PROT_READ: "r--p", kit.RW: "rw-p", unix.PROT_READ | unix.PROT_EXEC: "r-xp"}[prot]
}

// The program, and three that are like it and did no harm.
func TestFixedMappingOverTheLastLeaf(t *testing.T) {
	for _, c := range []struct {
		name   string
		n      int // mappings
		short  int // how many of the last ones are left alone
		merges bool
	}{
		{"the-program", 224, 0, true},
		{"one-mapping-fewer", 223, 0, true},
		{"no-merge-to-the-left", 224, 0, false},
		{"not-to-the-end", 224, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRow(t, c.n)
			for from := c.n - c.short - 1; from >= 1; from -= step(c.n - from) {
				to := c.n - c.short
				prot := unix.PROT_READ | unix.PROT_EXEC
				if c.merges {
					prot = r.prot(from - 1)
				}
				r.put(t, from, to, prot)
				r.check(t, from, to, prot)
				r.mapFrom(t, from)
			}
			r.check(t, 0, 0, 0)
		})
	}
}

// step leaves out most beginnings that are further from the end than two leaves can be.
func step(distance int) int {
	if distance < 40 {
		return 1
	}
	return 23
}

// Leaves elsewhere in the tree: everything that two or three leaves may hold, at every end.
func TestFixedMappingOverWholeLeaves(t *testing.T) {
	r := newRow(t, 224)
	for to := 224; to > 190; to-- {
		for length := 12; length < 34; length += 3 {
			from := to - length
			prot := r.prot(from - 1)
			r.put(t, from, to, prot)
			r.check(t, from, to, prot)
			for i := from; i < to; i++ {
				r.put(t, i, i+1, r.prot(i))
			}
		}
	}
	r.check(t, 0, 0, 0)
}

// What is lost is not only shown wrong: memory beyond must still be there.
func TestNeighboursOfTheLastLeafKeepTheirContents(t *testing.T) {
	r := newRow(t, 224)
	for i := 1; i < 224; i += 2 {
		require.False(t, kit.Me.Store(r.at(i), byte(i)).Faulted())
	}
	for from := 223; from > 150; from -= 2 {
		r.put(t, from, 224, r.prot(from-1))
		for i := 1; i < from; i += 2 {
			require.Equal(t, kit.Access{Value: uint64(i)}, kit.Me.Load(r.at(i)), "mapping %d after one over [%d,224)", i, from)
		}
		require.Equal(t, kit.Access{}, kit.Me.Load(r.at(223)))
	}
}
