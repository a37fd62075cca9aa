package mm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// What the race tests share: an address space with a few ranges side by side, so
// that their vmas split and merge with each other's, and threads that work on them.
// The claims are in race_threads_test.go.
//
//	| before |  always  |  own  | pair |  file  | after |      moves      |
//
// Every word that anybody writes says which page it belongs to. Memory that turns
// up where it does not belong is noticed by that.

const (
	racePages = 16 // of each range but the following

	// raceMovePages is more than a host step, and raceMoveStride the distance of
	// the pages in it that are used.
	raceMovePages  = 2*pieceSize/pageSize + 32
	raceMoveStride = 96
)

// raceScene is the address space, and its ranges.
type raceScene struct {
	*testMM
	seed int64

	// always is mapped and accessible all the time, to whatever.
	always hostarch.AddrRange

	// own belongs to one thread, which alone writes to it and maps it.
	own hostarch.AddrRange

	// pair is two pages that are never mapped anew, and to which one thread writes
	// ever higher numbers: to the first one first.
	pair hostarch.AddrRange

	// file maps file, which is truncated and grows.
	file hostarch.AddrRange

	// around is all of that and a page on each side, mapped now and then.
	around hostarch.AddrRange

	// moves is where one thread moves a large mapping back and forth.
	moves [2]hostarch.AddrRange

	files  []*testMappable // for always
	shared *testMappable   // for file

	stop    chan struct{} // closed when those who change things are done
	changes sync.WaitGroup
	threads []*task
	ops     atomic.Int64
}

func newRaceScene(t testing.TB, mods ...func(*mmConfig)) *raceScene {
	s := &raceScene{testMM: newTestMM(t, append(mods, onRealMemory)...), seed: testSeed(t), stop: make(chan struct{})}
	s.severalThreads()
	addr := s.base + pageSize
	next := func(n uint64) hostarch.AddrRange {
		r := rangeAt(addr, n*pageSize)
		addr = r.End
		return r
	}
	s.always, s.own, s.pair, s.file = next(racePages), next(racePages), next(2), next(racePages)
	s.around = hostarch.AddrRange{Start: s.base, End: addr + pageSize}
	addr = s.base + 1<<30
	s.moves = [2]hostarch.AddrRange{next(raceMovePages), next(raceMovePages)}

	for i := range 2 {
		f := newTestMappable(t, s.mf, racePages*pageSize)
		for p := range racePages {
			f.set.write(uint64(p)*pageSize, s.word(s.always, p, uint16(i)))
		}
		s.files = append(s.files, f)
	}
	s.shared = newTestMappable(t, s.mf, racePages*pageSize)
	s.mustMap(uint64(s.always.Length()), hostarch.ReadWrite, fixedAt(s.always.Start))
	s.mustMap(uint64(s.own.Length()), hostarch.ReadWrite, fixedAt(s.own.Start))
	s.mustMap(uint64(s.pair.Length()), hostarch.ReadWrite, fixedAt(s.pair.Start))
	s.mustMap(uint64(s.file.Length()), hostarch.ReadWrite, fixedAt(s.file.Start), sharedFile(s.shared, 0))
	s.mustMap(uint64(s.moves[0].Length()), hostarch.ReadWrite, fixedAt(s.moves[0].Start))
	return s
}

// rounds is how many times a thread that changes things goes round. MM_RACE
// multiplies it. Checks of each host call take so long that there are fewer.
func (s *raceScene) rounds(n int) int {
	if !s.as.lax {
		n = max(n/4, 1)
	}
	if k, err := strconv.Atoi(os.Getenv("MM_RACE")); err == nil {
		n *= k
	}
	return n
}

// change runs f n times, in a thread of its own.
func (s *raceScene) change(name string, n int, f func(rng *rand.Rand) error) {
	rng := rand.New(rand.NewSource(s.seed + int64(len(s.threads))))
	s.changes.Add(1)
	s.threads = append(s.threads, spawn(s.t, name, func() error {
		defer s.changes.Done()
		for i := range s.rounds(n) {
			if err := f(rng); err != nil {
				return fmt.Errorf("round %d: %w", i, err)
			}
		}
		return nil
	}))
}

// watch runs f again and again until nothing is changed any more.
func (s *raceScene) watch(name string, f func(rng *rand.Rand) error) {
	rng := rand.New(rand.NewSource(s.seed + int64(len(s.threads))))
	s.threads = append(s.threads, spawn(s.t, name, func() error {
		for {
			if err := f(rng); err != nil {
				return err
			}
			s.ops.Add(1)
			runtime.Gosched() // who changes things is who matters
			select {
			case <-s.stop:
				return nil
			default:
			}
		}
	}))
}

// finish waits for all threads.
func (s *raceScene) finish() {
	s.t.Helper()
	s.changes.Wait()
	close(s.stop)
	for _, k := range s.threads {
		if err := k.wait(); err != nil {
			s.t.Errorf("%s: %v", k.name, err)
		}
	}
	s.t.Logf("%d rounds of those who only look", s.ops.Load())
	if !s.t.Failed() {
		s.check()
	}
}

// regionOf numbers ranges.
func (s *raceScene) regionOf(r hostarch.AddrRange) uint32 {
	switch r.Start {
	case s.always.Start:
		return 1
	case s.own.Start:
		return 2
	case s.file.Start:
		return 3
	case s.moves[0].Start, s.moves[1].Start:
		return 4 // both are the same memory
	}
	panic("no such range")
}

// tag is the upper half of all words in page p of r.
func (s *raceScene) tag(r hostarch.AddrRange, p int) uint32 {
	return s.regionOf(r)<<12 | uint32(p)
}

// word returns a word that belongs to page p of r.
func (s *raceScene) word(r hostarch.AddrRange, p int, n uint16) []byte {
	return binary.NativeEndian.AppendUint32(nil, s.tag(r, p)<<16|uint32(n))
}

// belongs returns an error if a word was not written to page p of r.
func (s *raceScene) belongs(r hostarch.AddrRange, p int, word []byte) error {
	v := binary.NativeEndian.Uint32(word)
	if v != 0 && v>>16 != s.tag(r, p) {
		return fmt.Errorf("page %d of %v holds %#x, which belongs to range %d, page %d", p, r, v, v>>28, v>>16&0xfff)
	}
	return nil
}

// at returns the address of page p of r.
func at(r hostarch.AddrRange, p int) hostarch.Addr { return r.Start + hostarch.Addr(p)*pageSize }

// gone returns whether err says that there is no (accessible) memory.
func gone(err error) bool {
	var bus *memmap.BusError
	return linuxerr.Equals(linuxerr.EFAULT, err) || linuxerr.Equals(linuxerr.EPERM, err) || errors.As(err, &bus)
}

// touch reads or writes page p of r in one of the ways there are. What it reads has
// to belong there. If mayFail is set, there may be no memory.
func (s *raceScene) touch(rng *rand.Rand, r hostarch.AddrRange, p int, write, mayFail bool) error {
	addr, word := at(r, p), make([]byte, 4)
	var err error
	how := rng.Intn(3)
	switch {
	case write:
		word = s.word(r, p, uint16(rng.Intn(1<<16)))
		switch how {
		case 0:
			err = s.store(addr, word)
		case 1:
			_, err = s.CopyOut(s.ctx, addr, word, usermem.IOOpts{})
		case 2:
			var old uint32
			old, err = s.SwapUint32(s.ctx, addr, binary.NativeEndian.Uint32(word), usermem.IOOpts{})
			binary.NativeEndian.PutUint32(word, old)
		}
	case how == 0:
		word, err = s.load(addr, 4)
	case how == 1:
		_, err = s.CopyIn(s.ctx, addr, word, usermem.IOOpts{})
	case how == 2:
		_, err = s.CopyIn(s.ctx, addr, word, usermem.IOOpts{IgnorePermissions: true})
	}
	if err != nil {
		if mayFail && (gone(err) || isHostFault(err)) {
			return nil
		}
		return fmt.Errorf("%v page %d of %v, way %d: %w", map[bool]string{true: "writing", false: "reading"}[write], p, r, how, err)
	}
	return s.belongs(r, p, word)
}
