package vmatree

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/btree"
)

// The benchmarks do one job on the same data twice: with this package, and with
// google/btree, which is ordered by Start alone and knows nothing of ranges.

const page = 4096

var benchSizes = []int{100, 1000, 64000}

type (
	benchSnapshot = Snapshot[*int, struct{}]
	benchTxn      = Txn[*int, struct{}]
	benchEntry    = Entry[*int]
)

var benchValue = new(int)

// benchData returns n ranges of 1 to 16 pages, a third of which touch the next
// one, while the others are 1 to 8 pages apart, but for one gap, at two thirds,
// that is longer than all others.
func benchData(n int) (ranges []Range, longest Range) {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	at := uint64(1 << 40)
	where := n * 2 / 3
	for i := range n {
		if i == where {
			longest = Range{at, at + 1000*page}
			at = longest.End
		} else if rnd.IntN(3) > 0 {
			at += page * (1 + rnd.Uint64N(8))
		}
		r := Range{at, at + page*(1+rnd.Uint64N(16))}
		ranges = append(ranges, r)
		at = r.End
	}
	return ranges, longest
}

// shuffled returns the indexes of n ranges in random order.
func shuffled(n int) []int {
	return rand.New(rand.NewPCG(2, uint64(n))).Perm(n)
}

func benchTree(ranges []Range) *Tree[*int, struct{}] {
	t := new(Tree[*int, struct{}])
	x := t.Begin(nil)
	for _, i := range shuffled(len(ranges)) {
		x.Insert(ranges[i], benchValue)
	}
	t.Commit(x)
	return t
}

// btreeDegree is the one that google/btree's own benchmarks use by default.
const btreeDegree = 32

func benchBTree(ranges []Range) *btree.BTreeG[benchEntry] {
	t := btree.NewG(btreeDegree, func(a, b benchEntry) bool { return a.Start < b.Start })
	for _, i := range shuffled(len(ranges)) {
		t.ReplaceOrInsert(benchEntry{ranges[i], benchValue})
	}
	return t
}

// benchAddrs returns random addresses inside ranges. There are so many that the
// branch predictor does not learn them.
func benchAddrs(ranges []Range) []uint64 {
	rnd := rand.New(rand.NewPCG(3, uint64(len(ranges))))
	addrs := make([]uint64, 1<<16)
	for i := range addrs {
		r := ranges[rnd.IntN(len(ranges))]
		addrs[i] = r.Start + rnd.Uint64N(r.Len())
	}
	return addrs
}

func forSizes(b *testing.B, f func(b *testing.B, ranges []Range)) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			ranges, _ := benchData(n)
			b.ReportAllocs()
			f(b, ranges)
		})
	}
}

func BenchmarkFind(b *testing.B) {
	b.Run("vmatree", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			s, addrs := benchTree(ranges).Snapshot(), benchAddrs(ranges)
			i := 0
			for b.Loop() {
				if _, ok := s.Find(addrs[i&(len(addrs)-1)]); !ok {
					b.Fatal("not found")
				}
				i++
			}
		})
	})
	b.Run("btree", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			t, addrs := benchBTree(ranges), benchAddrs(ranges)
			i := 0
			var found benchEntry
			visit := func(e benchEntry) bool {
				found = e
				return false
			}
			for b.Loop() {
				addr := addrs[i&(len(addrs)-1)]
				t.DescendLessOrEqual(benchEntry{Range: Range{Start: addr}}, visit)
				if !found.Contains(addr) {
					b.Fatal("not found")
				}
				i++
			}
		})
	})
}

// One range is replaced in a new version of the tree.
func BenchmarkReplace(b *testing.B) {
	b.Run("vmatree", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			t, order := benchTree(ranges), shuffled(len(ranges))
			i := 0
			for b.Loop() {
				r := ranges[order[i]]
				x := t.Begin(nil)
				if d := x.Detach(r); d.Len() != 1 {
					b.Fatal("not one entry")
				}
				x.Insert(r, benchValue)
				t.Commit(x)
				if i++; i == len(order) {
					i = 0
				}
			}
		})
	})
	b.Run("btree", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			t, order := benchBTree(ranges), shuffled(len(ranges))
			i := 0
			for b.Loop() {
				r := ranges[order[i]]
				x := t.Clone()
				if _, ok := x.Delete(benchEntry{Range: r}); !ok {
					b.Fatal("not found")
				}
				x.ReplaceOrInsert(benchEntry{r, benchValue})
				t = x
				if i++; i == len(order) {
					i = 0
				}
			}
		})
	})
}

// The same in a transaction that is never committed, or a tree never cloned.
func BenchmarkReplaceInPlace(b *testing.B) {
	b.Run("vmatree", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			x := benchSnapshot{}.Begin(nil)
			order := shuffled(len(ranges))
			for _, i := range order {
				x.Insert(ranges[i], benchValue)
			}
			i := 0
			for b.Loop() {
				r := ranges[order[i]]
				if d := x.Detach(r); d.Len() != 1 {
					b.Fatal("not one entry")
				}
				x.Insert(r, benchValue)
				if i++; i == len(order) {
					i = 0
				}
			}
		})
	})
	b.Run("btree", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			t, order := benchBTree(ranges), shuffled(len(ranges))
			i := 0
			for b.Loop() {
				r := ranges[order[i]]
				if _, ok := t.Delete(benchEntry{Range: r}); !ok {
					b.Fatal("not found")
				}
				t.ReplaceOrInsert(benchEntry{r, benchValue})
				if i++; i == len(order) {
					i = 0
				}
			}
		})
	})
}

// ns/op is for the whole tree; ns/entry is reported beside it.
func BenchmarkIterate(b *testing.B) {
	perEntry := func(b *testing.B, n int) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
	}
	b.Run("vmatree-All", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			s := benchTree(ranges).Snapshot()
			var sum uint64
			for b.Loop() {
				for r := range s.All() {
					sum += r.Start
				}
			}
			perEntry(b, len(ranges))
		})
	})
	b.Run("vmatree-Backward", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			s := benchTree(ranges).Snapshot()
			var sum uint64
			for b.Loop() {
				for r := range s.Backward() {
					sum += r.Start
				}
			}
			perEntry(b, len(ranges))
		})
	})
	b.Run("vmatree-Cursor", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			s := benchTree(ranges).Snapshot()
			var sum uint64
			for b.Loop() {
				for c := s.First(); c.Valid(); c.Next() {
					sum += c.Range().Start
				}
			}
			perEntry(b, len(ranges))
		})
	})
	b.Run("btree", func(b *testing.B) {
		forSizes(b, func(b *testing.B, ranges []Range) {
			t := benchBTree(ranges)
			var sum uint64
			for b.Loop() {
				t.Ascend(func(e benchEntry) bool {
					sum += e.Start
					return true
				})
			}
			perEntry(b, len(ranges))
		})
	})
}

// Only one gap is long enough, and the search begins at a random place below it
// (FirstGap) or above it (LastGap).
func BenchmarkGap(b *testing.B) {
	const long = 900 * page
	for _, last := range []bool{false, true} {
		name := "FirstGap"
		if last {
			name = "LastGap"
		}
		b.Run(name, func(b *testing.B) {
			for _, n := range benchSizes {
				b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
					b.ReportAllocs()
					ranges, longest := benchData(n)
					s := benchTree(ranges).Snapshot()
					rnd := rand.New(rand.NewPCG(4, uint64(n)))
					bounds := make([]Range, 1<<12)
					for i := range bounds {
						bounds[i] = Range{rnd.Uint64N(longest.Start-ranges[0].Start+1) + ranges[0].Start, ranges[n-1].End}
						if last {
							bounds[i] = Range{ranges[0].Start, longest.End + rnd.Uint64N(ranges[n-1].End-longest.End+1)}
						}
					}
					search := s.FirstGap
					if last {
						search = s.LastGap
					}
					i := 0
					for b.Loop() {
						if g, ok := search(bounds[i&(len(bounds)-1)], long); !ok || g != longest {
							b.Fatal(g, ok)
						}
						i++
					}
				})
			}
		})
	}
}

func BenchmarkCovered(b *testing.B) {
	forSizes(b, func(b *testing.B, ranges []Range) {
		s, addrs := benchTree(ranges).Snapshot(), benchAddrs(ranges)
		i := 0
		for b.Loop() {
			x, y := addrs[i&(len(addrs)-1)], addrs[(i+1)&(len(addrs)-1)]
			if s.Covered(Range{min(x, y), max(x, y)}) > max(x, y)-min(x, y) {
				b.Fatal("more than all")
			}
			i++
		}
	})
}

// One reader takes a snapshot and looks up an address in it, while
//
//   - nothing else runs;
//   - a writer replaces ranges in a tree of its own: what that costs the reader
//     is the memory bus and the garbage collector;
//   - a writer does so in the tree that is read. What it costs more is the price
//     of sharing: the reader's cache must fetch what the writer wrote.
//
// The writer goes as fast as it can, which no application does, or sleeps a moment
// after each commit. How many commits there were is printed.
func BenchmarkReadWhileWriting(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			ranges, _ := benchData(n)
			b.Run("alone", func(b *testing.B) {
				benchReader(b, benchTree(ranges), ranges)
			})
			for _, pause := range []time.Duration{0, 50 * time.Microsecond} {
				speed := "fast"
				if pause > 0 {
					speed = "paced"
				}
				b.Run(speed+"-writer-elsewhere", func(b *testing.B) {
					stop := benchWriter(benchTree(ranges), ranges, pause)
					benchReader(b, benchTree(ranges), ranges)
					b.ReportMetric(float64(stop())/b.Elapsed().Seconds(), "commits/s")
				})
				b.Run(speed+"-writer-here", func(b *testing.B) {
					t := benchTree(ranges)
					stop := benchWriter(t, ranges, pause)
					benchReader(b, t, ranges)
					b.ReportMetric(float64(stop())/b.Elapsed().Seconds(), "commits/s")
				})
			}
		})
	}
}

func benchReader(b *testing.B, t *Tree[*int, struct{}], ranges []Range) {
	addrs := benchAddrs(ranges)
	i := 0
	for b.Loop() {
		if _, ok := t.Snapshot().Find(addrs[i&(len(addrs)-1)]); !ok {
			b.Fatal("not found")
		}
		i++
	}
}

// benchWriter replaces ranges in t, each by a commit, until stop is called, which
// returns the number of commits. Readers find every range at all times.
func benchWriter(t *Tree[*int, struct{}], ranges []Range, pause time.Duration) (stop func() int) {
	var wg sync.WaitGroup
	quit := make(chan struct{})
	order := shuffled(len(ranges))
	commits := 0
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			r := ranges[order[commits%len(order)]]
			x := t.Begin(nil)
			x.Detach(r)
			x.Insert(r, benchValue)
			t.Commit(x)
			commits++
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	})
	return func() int {
		close(quit)
		wg.Wait()
		return commits
	}
}

// Readers on all processors, each with its own snapshots: throughput grows with
// them, as they write nothing that they share.
func BenchmarkParallelRead(b *testing.B) {
	forSizes(b, func(b *testing.B, ranges []Range) {
		t, addrs := benchTree(ranges), benchAddrs(ranges)
		b.RunParallel(func(pb *testing.PB) {
			i := rand.IntN(len(addrs))
			for pb.Next() {
				if _, ok := t.Snapshot().Find(addrs[i&(len(addrs)-1)]); !ok {
					b.Error("not found")
					return
				}
				i++
			}
		})
	})
}
