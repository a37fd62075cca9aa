package mm

import (
	"bytes"
	"fmt"
	"math/rand"
	"regexp"
	"runtime"
	"strconv"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// The threads of race_threads_test.go that only look, or read and write memory.

// touchAll touches a page of some range (claims 1 and 2).
func (s *raceScene) touchAll(rng *rand.Rand) error {
	p := rng.Intn(racePages)
	write := rng.Intn(2) == 0
	switch rng.Intn(5) {
	case 0, 1:
		return s.touch(rng, s.always, p, write, false)
	case 2:
		// It has an owner, who does not expect others to write.
		return s.touch(rng, s.own, p, false, true)
	case 3:
		return s.touch(rng, s.file, p, write, true)
	default:
		p := rng.Intn(raceMovePages/raceMoveStride) * raceMoveStride
		return s.touch(rng, s.moves[rng.Intn(2)], p, false, true)
	}
}

// pinAndLook pins pages and looks at them behind the address space (claims 1, 2).
func (s *raceScene) pinAndLook(rng *rand.Rand) error {
	ar, first := part(rng, s.always)
	prs, err := s.Pin(s.ctx, ar, hostarch.Write, false)
	defer Unpin(prs)
	if err != nil {
		return fmt.Errorf("pinning %v: %w", ar, err)
	}
	got := 0
	for _, pr := range prs {
		for off := uint64(0); off < pr.FileRange().Length(); off += pageSize {
			fr := pr.FileRange()
			fr.Start += off
			fr.End = fr.Start + 4
			if err := s.belongs(s.always, first+got, fileBytes(s.t, pr.File, fr)); err != nil {
				return err
			}
			got++
		}
	}
	if got != int(ar.Length()/pageSize) {
		return fmt.Errorf("of %v, %d pages were pinned", ar, got)
	}
	return nil
}

// readMaps looks at /proc/[pid]/maps (claims 1 and 4).
func (s *raceScene) readMaps(rng *rand.Rand) error {
	var last, covered hostarch.Addr
	var err error
	covered = s.always.Start
	s.ReadMapsDataInto(s.ctx, func(start, end hostarch.Addr, _ hostarch.AccessType, _ string, _ uint64, _, _ uint32, _ uint64, _ string) {
		if (start < last || end <= start) && err == nil {
			err = fmt.Errorf("maps shows %#x-%#x behind %#x", start, end, last)
		}
		if start <= covered && end > covered {
			covered = end
		}
		last = end
		if rng.Intn(8) == 0 {
			runtime.Gosched() // who reads slowly sees what others have replaced by then
		}
	})
	if covered < s.always.End && err == nil {
		err = fmt.Errorf("maps shows a gap at %#x, in %v, which is mapped all the time", covered, s.always)
	}
	return err
}

var (
	raceSmapsHead = regexp.MustCompile(`^([0-9a-f]+)-([0-9a-f]+) `)
	raceSmapsSize = regexp.MustCompile(`^(Size|Rss): +(\d+) kB`)
)

// readSmaps looks at /proc/[pid]/smaps (claims 1 and 4).
func (s *raceScene) readSmaps(*rand.Rand) error {
	var buf bytes.Buffer
	s.ReadSmapsDataInto(s.ctx, &buf)
	covered, last, size := uint64(s.always.Start), uint64(0), uint64(0)
	for _, line := range bytes.Split(buf.Bytes(), []byte("\n")) {
		if m := raceSmapsHead.FindSubmatch(line); m != nil {
			start, _ := strconv.ParseUint(string(m[1]), 16, 64)
			end, _ := strconv.ParseUint(string(m[2]), 16, 64)
			if start < last || end <= start {
				return fmt.Errorf("smaps shows %#x-%#x behind %#x", start, end, last)
			}
			if start <= covered && end > covered {
				covered = end
			}
			last = end
		} else if m := raceSmapsSize.FindSubmatch(line); m != nil {
			n, _ := strconv.ParseUint(string(m[2]), 10, 64)
			if string(m[1]) == "Size" {
				size = n
			} else if n > size {
				return fmt.Errorf("smaps shows %d kB of pages in %d kB that end at %#x", n, size, last)
			}
		}
	}
	if covered < uint64(s.always.End) {
		return fmt.Errorf("smaps shows a gap at %#x, in %v, which is mapped all the time", covered, s.always)
	}
	return nil
}

// lookUp asks what is at an address of always (claims 1 and 7).
func (s *raceScene) lookUp(rng *rand.Rand) error {
	addr := at(s.always, rng.Intn(racePages))
	key, err := s.GetSharedFutexKey(s.ctx, addr)
	if err != nil {
		return fmt.Errorf("futex key of %#x: %w", addr, err)
	}
	if key.MappingIdentity != nil {
		key.MappingIdentity.MappedName(s.ctx)
		key.MappingIdentity.DecRef(s.ctx)
	}
	if n := s.VirtualMemorySizeRange(s.always); n != uint64(s.always.Length()) {
		return fmt.Errorf("%#x bytes of %v are mapped", n, s.always)
	}
	ar, err := s.FindVMARange(addr)
	if err != nil || !ar.Contains(addr) {
		return fmt.Errorf("the mapping at %#x is %v, %w", addr, ar, err)
	}
	if _, _, err := s.NumaPolicy(addr); err != nil {
		return err
	}
	root := s.vmas.Snapshot()
	if err := validateVMAs(root); err != nil {
		return fmt.Errorf("a snapshot: %w", err)
	}
	return nil
}
