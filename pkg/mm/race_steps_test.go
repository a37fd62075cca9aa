package mm

import (
	"bytes"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/usermem"
)

// Large copies, which hold pages and no lock; forks, after which writes go to copies; faults, which make those
// copies; and populating, with memory that is committed without a lock, in a range that somebody else unmaps.
// What was copied is there afterwards, all of it, and what a child has stays as it is.
func TestLargeCopiesRaceWithForks(t *testing.T) {
	const size = 4 * pieceSize // copying takes long enough for a fork and a fault
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	m := newTestMM(t, onRealMemory)
	m.severalThreads()
	seed := testSeed(t)
	buffer := rangeAt(m.mustMap(size, hostarch.ReadWrite, fixedAt(m.base), committedNow), size)
	const n = 2*pieceSize + 5*pageSize
	contested := rangeAt(m.base+1<<30, n)
	var stop atomic.Bool
	var others sync.WaitGroup
	other := func(name string, f func(rng *rand.Rand) error) {
		others.Go(func() {
			rng := rand.New(rand.NewSource(seed))
			for !stop.Load() {
				if err := f(rng); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	other("fault", func(rng *rand.Rand) error {
		return m.fault(buffer.Start+hostarch.Addr(rng.Intn(size/pageSize))*pageSize, hostarch.Write)
	})
	other("fork", func(*rand.Rand) error {
		child, err := m.Fork(m.ctx)
		if err != nil {
			return err
		}
		defer child.DecUsers(m.ctx)
		// At the end of the buffer, where a copy gets last.
		for p := range 4 {
			if err := m.fault(buffer.End-hostarch.Addr(p*16+1)*pageSize, hostarch.Write); err != nil {
				return err
			}
		}
		seen := make([]byte, size)
		if _, err := child.CopyIn(m.ctx, buffer.Start, seen, usermem.IOOpts{}); err != nil {
			return err
		}
		again := make([]byte, size)
		if _, err := child.CopyIn(m.ctx, buffer.Start, again, usermem.IOOpts{}); err != nil {
			return err
		}
		if !bytes.Equal(seen, again) {
			return fmt.Errorf("what the child has changes")
		}
		return nil
	})
	other("populate", func(*rand.Rand) error {
		_, err := m.mmap(n, hostarch.ReadWrite, fixedAt(contested.Start), committedNow)
		return err
	})
	other("munmap", func(rng *rand.Rand) error {
		start := contested.Start + hostarch.Addr(rng.Intn(n/pageSize))*pageSize
		return m.MUnmap(m.ctx, start, uint64(contested.End-start))
	})
	data, got := make([]byte, size), make([]byte, size)
	for i := range rounds {
		for j := range data {
			data[j] = byte(i + 1)
		}
		if _, err := m.CopyOut(m.ctx, buffer.Start, data, usermem.IOOpts{}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.CopyIn(m.ctx, buffer.Start, got, usermem.IOOpts{}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, got) {
			t.Fatalf("round %d: what was copied is not there", i)
		}
	}
	stop.Store(true)
	others.Wait()
	m.check()
	m.exit()
}
