// Each way to replace a mapping, in each place of a region.

package gap

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// pairs are the states that writers alternate.
var pairs = [][2]state{
	{anonymous, anonymous},
	{anonymous, sharedAnon},
	{anonymous, privateFile},
	{anonymous, sharedFile},
	{sharedFile, sharedFile},
	{privateFile, privateFile},
	{sharedFile, otherOffset},
	{privateFile, privateElse},
	{privateFile, sharedFile},
}

// A place is the part of a region that is replaced. What is around it stays in the first state, so it
// merges with a replacement by that, and is split by a replacement by the second.
type place struct {
	name              string
	pages, first, end int
	// prepare changes the part before each replacement.
	prepare func(s *scene, round int)
}

// region   |------------|
// whole    |============|
// start    |=====|------|
// middle   |---|=====|--|
// end      |------|=====|
var places = []place{
	{name: "whole", pages: 12, first: 0, end: 12},
	{name: "start", pages: 12, first: 0, end: 6},
	{name: "middle", pages: 12, first: 4, end: 9},
	{name: "end", pages: 12, first: 7, end: 12},
	{name: "many vmas", pages: 12, first: 1, end: 11, prepare: splitUp},
}

// splitUp keeps every second page of the middle from being inherited, so that there is a vma for each.
func splitUp(s *scene, round int) {
	for page := 1 + round%2; page < 11; page += 2 {
		if e := kit.Me.Madvise(s.Page(page), kit.Len(1), unix.MADV_DONTFORK); e != 0 {
			s.report("madvise of page %d: %v", page, e)
		}
	}
}

func TestReplacementLeavesNoGap(t *testing.T) {
	for _, pair := range pairs {
		for _, populate := range []bool{false, true} {
			for _, p := range places {
				name, flags := fmt.Sprintf("%s over %s/%s/untouched", pair[1].name, pair[0].name, p.name), 0
				if populate {
					name, flags = fmt.Sprintf("%s over %s/%s/populated", pair[1].name, pair[0].name, p.name), unix.MAP_POPULATE
				}
				t.Run(name, func(t *testing.T) {
					s := newScene(t, p.pages, kit.Dirs()[1], pair[0], pair[1])
					s.run(t, func(round int) { s.alternate(p, flags, round) })
				})
			}
		}
	}
}

// alternate replaces the place by the other state.
func (s *scene) alternate(p place, flags, round int) {
	if p.prepare != nil {
		p.prepare(s, round)
	}
	st := s.states[(round+1)%len(s.states)]
	s.put(st, p.first, p.end, flags)
	if round%3 == 0 {
		s.spoil(st, (p.first+p.end)/2)
	}
}

// A file of the machine, which under a sandbox is far from the kernel.
func TestReplacementByAFileOnDiskLeavesNoGap(t *testing.T) {
	for _, pair := range [][2]state{{anonymous, sharedFile}, {sharedFile, otherOffset}, {privateFile, privateElse}} {
		t.Run(pair[1].name+" over "+pair[0].name, func(t *testing.T) {
			p := places[2]
			s := newScene(t, p.pages, kit.Dirs()[0], pair[0], pair[1])
			s.run(t, func(round int) { s.alternate(p, 0, round) })
		})
	}
}

// Regions of several huge pages, whose pages do not go in one step.
func TestLargeReplacementLeavesNoGap(t *testing.T) {
	const pages = 5 * kit.HugeSize / 2 / 4096
	for _, pair := range [][2]state{{anonymous, anonymous}, {anonymous, sharedFile}, {sharedFile, otherOffset}} {
		for _, flags := range []int{0, unix.MAP_POPULATE} {
			t.Run(fmt.Sprintf("%s over %s/%#x", pair[1].name, pair[0].name, flags), func(t *testing.T) {
				p := place{first: 100, end: pages - 100}
				s := newScene(t, pages, kit.Dirs()[1], pair[0], pair[1])
				s.run(t, func(round int) {
					s.alternate(p, flags, round)
					for page := p.first; page < p.end; page += 50 {
						s.spoil(s.states[(round+1)%2], page)
					}
				})
			})
		}
	}
}

// Two threads replace neighbouring parts, which merge and split at the border.
func TestNeighboursReplacedByTwoThreads(t *testing.T) {
	s := newScene(t, 12, kit.Dirs()[1], anonymous, sharedFile)
	left, right := place{first: 1, end: 6}, place{first: 6, end: 11}
	s.run(t, func(round int) { s.alternate(left, 0, round) }, func(round int) { s.alternate(right, 0, round) })
}

// Threads replace parts that are drawn at random and overlap, by any state. SEED repeats the draw.
func TestRandomReplacements(t *testing.T) {
	seed := uint64(os.Getpid())
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal("SEED: ", err)
		}
	}
	t.Logf("SEED=%d", seed)
	all := []state{anonymous, sharedAnon, privateFile, sharedFile, otherOffset, privateElse}
	s := newScene(t, 12, kit.Dirs()[1], all...)
	var writers []func(int)
	for thread := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, thread))
		writers = append(writers, func(int) {
			first := random.IntN(12)
			end := first + 1 + random.IntN(12-first)
			st := all[random.IntN(len(all))]
			s.put(st, first, end, random.IntN(2)*unix.MAP_POPULATE)
		})
	}
	s.run(t, writers...)
}

// The watchers would see a gap: one that is made on purpose is found by each of them.
func TestWatchersSeeAGap(t *testing.T) {
	for i, watch := range watchers {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			s := newScene(t, 12, kit.Dirs()[1], anonymous)
			if e := kit.Me.Munmap(s.Page(5), kit.Len(1)); e != 0 {
				t.Fatal(e)
			}
			watch(s)
			if s.problem.Load() == nil {
				t.Fatal("not seen")
			}
		})
	}
}

// The watchers would see a foreign value, and a foreign line.
func TestWatchersSeeForeignStates(t *testing.T) {
	for i, watch := range watchers[:4] {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			s := newScene(t, 12, kit.Dirs()[1], sharedFile)
			s.put(otherOffset, 5, 6, 0)
			watch(s)
			if s.problem.Load() == nil {
				t.Fatal("not seen")
			}
		})
	}
}
