package traps

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Large enough that taking its pages away takes the sentry several steps.
const largePages = 4096

// together calls f in two threads at the same time.
func together(f func(which int)) {
	var ready, done sync.WaitGroup
	ready.Add(2)
	for which := range 2 {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			f(which)
		})
	}
	done.Wait()
}

// probes are the pages of a large area to look at.
var probes = []int{0, 1, largePages / 2, largePages - 1}

// The second of two overlapping munmaps finds nothing to do. When it returns, the pages must be gone
// all the same.
func TestSecondMunmapWaitsForHost(t *testing.T) {
	area := low(largePages)
	for range 10 {
		anon(t, area, unix.MAP_POPULATE)
		var reached [2]int
		var errs [2]error
		together(func(which int) {
			errs[which] = unmap(area)
			for _, page := range probes {
				if _, ok := load(&area[page*pageSize]); ok {
					reached[which]++
				}
			}
		})
		require.Equal(t, [2]error{}, errs)
		require.Zero(t, reached, "pages that could be loaded after munmap, by thread")
	}
}

func TestSecondMprotectWaitsForHost(t *testing.T) {
	area := low(largePages)
	anon(t, area, unix.MAP_POPULATE)
	for range 10 {
		require.NoError(t, unix.Mprotect(area, rw))
		for page := range largePages {
			area[page*pageSize] = 1
		}
		var reached [2]int
		var errs [2]error
		together(func(which int) {
			errs[which] = unix.Mprotect(area, unix.PROT_READ)
			for _, page := range probes {
				if store(&area[page*pageSize], 2) {
					reached[which]++
				}
			}
		})
		require.Equal(t, [2]error{}, errs)
		require.Zero(t, reached, "pages that could be stored to after mprotect, by thread")
	}
}

// A mapping that goes into a hole as soon as the hole is visible belongs to whoever made it: the munmap
// that made the hole must not take its pages.
func TestMmapIntoJustUnmappedRangeKeepsWrites(t *testing.T) {
	area := low(largePages)
	end := area[(largePages-64)*pageSize:]
	for range 20 {
		anon(t, area, unix.MAP_POPULATE)
		var unmapped atomic.Bool
		var errs [2]error
		var lost int
		together(func(which int) {
			if which == 0 {
				errs[0] = unmap(area)
				unmapped.Store(true)
				return
			}
			for {
				last := unmapped.Load()
				err := mapAt(end, rw, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, -1, 0)
				if err == nil {
					break
				}
				if err != unix.EEXIST || last {
					errs[1] = err
					return
				}
			}
			for i := 0; i < len(end); i += pageSize {
				store(&end[i], 'w')
			}
			for !unmapped.Load() {
				load(&end[0])
			}
			for i := 0; i < len(end); i += pageSize {
				if got, ok := load(&end[i]); !ok || got != 'w' {
					lost++
				}
			}
		})
		require.Equal(t, [2]error{}, errs)
		require.Zero(t, lost, "pages whose write was lost")
	}
}

// Several threads each give up pages of one mapping and look at them again.
func TestDontneedThenReadSeesZero(t *testing.T) {
	const threads, pagesEach = 4, 8
	area := low(threads * pagesEach)
	anon(t, area, 0)
	var stale [threads]int
	var errs [threads]error
	var all sync.WaitGroup
	for n := range threads {
		all.Go(func() {
			own := area[n*pagesEach*pageSize:][:pagesEach*pageSize]
			for range 300 {
				for i := 0; i < len(own); i += pageSize {
					own[i] = 1
				}
				if errs[n] = unix.Madvise(own, unix.MADV_DONTNEED); errs[n] != nil {
					return
				}
				for i := 0; i < len(own); i += pageSize {
					if own[i] != 0 {
						stale[n]++
					}
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, [threads]error{}, errs)
	require.Zero(t, stale, "pages with old data after MADV_DONTNEED, by thread")
}
