package mm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safecopy"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// While threads map over, unmap, move, protect, lock and give up the same and
// neighbouring ranges, fork, and truncate files, these hold:
//
//  1. A range that is mapped all the time is there for everybody all the time: no
//     access to it fails, /proc/[pid]/maps shows no gap in it, all of it is counted.
//  2. What is read was written there, or is zero: no memory of another address, of
//     another file or of somebody else who got the pages afterwards.
//  3. A thread sees its own changes when its call returns: what it unmapped or made
//     inaccessible faults, what it mapped anew or gave up is zero, what it wrote or
//     moved is what it was, what it truncated gets SIGBUS.
//  4. maps and smaps are in order and do not overlap, and no mapping has more pages
//     than it is large.
//  5. A forked child has what its parent had at one moment: no write without those
//     before it.
//  6. The host never has a page mapped that the sentry does not know of there.
//  7. No identity is used after its last reference was dropped. (The harness sees.)
//  8. At the end everything adds up: counters, pages, registrations, references.
//
// MM_SEED repeats a choice of operations, though not of their order. MM_RACE=n makes
// the tests n times as long.

func TestThreadsRaceWithMappings(t *testing.T) {
	for name, mods := range map[string][]func(*mmConfig){
		"internal mappings": nil,
		"through the host":  {withASIO},
		"by units":          {withMapUnit(4 * pageSize)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRaceScene(t, mods...)
			s.as.lax = name != "internal mappings"
			s.change("maps over", 120, s.mapOver)
			s.change("moves over", 60, s.moveOver)
			s.change("advises", 120, s.advise)
			s.change("maps its own", 120, s.mapOwn)
			s.change("truncates", 80, s.truncate)
			s.change("moves", 12, s.move)
			s.change("forks", 12, s.forkAndLook)
			s.change("maps around", 60, s.mapAround)
			s.watch("touches", s.touchAll)
			s.watch("touches too", s.touchAll)
			s.watch("pins", s.pinAndLook)
			s.watch("counts up", s.countUp)
			s.watch("reads maps", s.readMaps)
			s.watch("reads smaps", s.readSmaps)
			s.watch("looks up", s.lookUp)
			s.watch("looks at the host", func(*rand.Rand) error { return s.checkHost() })
			s.finish()
		})
	}
}

// isHostFault returns whether err is the SIGBUS of the host.
func isHostFault(err error) bool {
	_, ok := err.(safecopy.BusError)
	return ok
}

// part returns some pages of r.
func part(rng *rand.Rand, r hostarch.AddrRange) (hostarch.AddrRange, int) {
	pages := int(r.Length() / pageSize)
	first := rng.Intn(pages)
	n := 1 + rng.Intn(pages-first)
	return rangeAt(at(r, first), uint64(n)*pageSize), first
}

// mapOver maps something else over a part of always (claim 1).
func (s *raceScene) mapOver(rng *rand.Rand) error {
	ar, first := part(rng, s.always)
	mods := []mmapMod{fixedAt(ar.Start)}
	off := uint64(first) * pageSize
	switch f := s.files[rng.Intn(2)]; rng.Intn(6) {
	case 0:
		mods = append(mods, sharedFile(f, off))
	case 1:
		mods = append(mods, privateFile(f, off))
	case 2, 3:
		// Another name, that nobody but the mapping will keep.
		g := f.set.newMappable()
		defer g.id.close()
		mods = append(mods, sharedFile(g, off))
	}
	switch rng.Intn(4) {
	case 0:
		mods = append(mods, populated)
	case 1:
		mods = append(mods, committedNow, required)
	case 2:
		mods = append(mods, named("x"))
	}
	_, err := s.mmap(uint64(ar.Length()), hostarch.ReadWrite, mods...)
	return err
}

// moveOver moves a mapping, with pages, over a part of always (claim 1).
func (s *raceScene) moveOver(rng *rand.Rand) error {
	ar, first := part(rng, s.always)
	n := uint64(ar.Length())
	var mods []mmapMod
	if rng.Intn(2) == 0 {
		mods = append(mods, sharedFile(s.files[rng.Intn(2)], uint64(first)*pageSize))
	}
	src, err := s.mmap(n, hostarch.ReadWrite, mods...)
	if err != nil {
		return err
	}
	for i := range int(n / pageSize) {
		if err := s.store(src+hostarch.Addr(i)*pageSize, s.word(s.always, first+i, 7)); err != nil {
			return err
		}
	}
	if _, err := s.MRemap(s.ctx, src, n, n, MRemapOpts{Move: MRemapMustMove, NewAddr: ar.Start}); err != nil {
		return err
	}
	if _, err := s.load(src, 1); !linuxerr.Equals(linuxerr.EFAULT, err) {
		return fmt.Errorf("reading at %#x, from where a mapping was moved: %v", src, err)
	}
	return nil
}

// advise changes what does not keep anybody from always.
func (s *raceScene) advise(rng *rand.Rand) error {
	ar, _ := part(rng, s.always)
	n := uint64(ar.Length())
	switch rng.Intn(6) {
	case 0:
		return s.MLock(s.ctx, ar.Start, n, []memmap.MLockMode{memmap.MLockEager, memmap.MLockLazy}[rng.Intn(2)])
	case 1:
		return s.MLock(s.ctx, ar.Start, n, memmap.MLockNone)
	case 2:
		if err := s.Decommit(ar.Start, n); err != nil && !linuxerr.Equals(linuxerr.EINVAL, err) {
			return err // EINVAL: locked
		}
	case 3:
		return s.MProtect(ar.Start, n, []hostarch.AccessType{hostarch.ReadWrite, hostarch.AnyAccess}[rng.Intn(2)], false)
	case 4:
		return s.SetDontFork(ar.Start, n, false)
	case 5:
		return s.MSync(s.ctx, ar.Start, n, MSyncOpts{Sync: true})
	}
	return nil
}

// mapOwn checks that the only thread that changes own sees what it did (claim 3).
func (s *raceScene) mapOwn(rng *rand.Rand) error {
	ar, first := part(rng, s.own)
	n := uint64(ar.Length())
	mustFail := func(what string) error {
		if _, err := s.load(ar.Start, 1); !gone(err) {
			return fmt.Errorf("%v was %s, and reading it returned %v", ar, what, err)
		}
		return nil
	}
	switch rng.Intn(4) {
	case 0:
		if err := s.MUnmap(s.ctx, ar.Start, n); err != nil {
			return err
		}
		if err := mustFail("unmapped"); err != nil {
			return err
		}
	case 1:
		if err := s.MProtect(ar.Start, n, hostarch.NoAccess, false); err != nil {
			return err
		}
		if err := mustFail("made inaccessible"); err != nil {
			return err
		}
	case 2:
		if err := s.Decommit(ar.Start, n); err != nil {
			return err
		}
		return s.allZero(ar)
	}
	if _, err := s.mmap(n, hostarch.ReadWrite, fixedAt(ar.Start)); err != nil {
		return err
	}
	if err := s.allZero(ar); err != nil {
		return err
	}
	for i := range int(n / pageSize) {
		word := s.word(s.own, first+i, uint16(rng.Intn(1<<16)))
		if err := s.store(at(ar, i), word); err != nil {
			return err
		}
		got := make([]byte, 4)
		if _, err := s.CopyIn(s.ctx, at(ar, i), got, usermem.IOOpts{}); err != nil || !bytes.Equal(got, word) {
			return fmt.Errorf("at %#x was written %x, and read %x, %v", at(ar, i), word, got, err)
		}
	}
	return nil
}

func (s *raceScene) allZero(ar hostarch.AddrRange) error {
	for a := ar.Start; a < ar.End; a += pageSize {
		if got, err := s.load(a, 4); err != nil || !bytes.Equal(got, make([]byte, 4)) {
			return fmt.Errorf("new memory at %#x holds %x, %v", a, got, err)
		}
	}
	return nil
}

// truncate shortens and grows the file, maps it anew and looks (claim 3).
func (s *raceScene) truncate(rng *rand.Rand) error {
	keep := rng.Intn(racePages)
	s.shared.set.truncate(uint64(keep) * pageSize)
	if _, err := s.load(at(s.file, keep), 1); !gone(err) {
		return fmt.Errorf("page %d was cut off, and reading it returned %v", keep, err)
	}
	mode := sharedFile
	if rng.Intn(2) == 0 {
		mode = privateFile
	}
	ar, first := part(rng, s.file)
	if _, err := s.mmap(uint64(ar.Length()), hostarch.ReadWrite, fixedAt(ar.Start), mode(s.shared, uint64(first)*pageSize)); err != nil {
		return err
	}
	s.shared.set.truncate(racePages * pageSize)
	if _, err := s.load(at(s.file, keep), 1); err != nil {
		return fmt.Errorf("page %d was added, and reading it returned %v", keep, err)
	}
	return nil
}

// move moves a large mapping to where it is not, and looks (claim 3).
func (s *raceScene) move(rng *rand.Rand) error {
	src, dst := s.moves[0], s.moves[1]
	if _, err := s.FindVMARange(src.Start); err != nil {
		src, dst = dst, src
	}
	want := make(map[int][]byte)
	for p := 0; p < raceMovePages; p += raceMoveStride {
		want[p] = s.word(src, p, uint16(rng.Intn(1<<16)))
		if err := s.store(at(src, p), want[p]); err != nil {
			return err
		}
	}
	n := uint64(src.Length())
	if _, err := s.MRemap(s.ctx, src.Start, n, n, MRemapOpts{Move: MRemapMustMove, NewAddr: dst.Start}); err != nil {
		return err
	}
	for p, word := range want {
		if got, err := s.load(at(dst, p), 4); err != nil || !bytes.Equal(got, word) {
			return fmt.Errorf("page %d was moved, held %x and holds %x, %v", p, word, got, err)
		}
		if _, err := s.load(at(src, p), 4); !linuxerr.Equals(linuxerr.EFAULT, err) {
			return fmt.Errorf("page %d was moved, and reading it where it was returned %v", p, err)
		}
	}
	return nil
}

// forkAndLook looks at a forked child and has it write (claim 5).
func (s *raceScene) forkAndLook(rng *rand.Rand) error {
	child, err := s.Fork(s.ctx)
	if err != nil {
		return err
	}
	c := wrapMM(s.t, child, s.ctx)
	defer c.exit()
	read := func(addr hostarch.Addr) (uint32, error) {
		b, err := c.load(addr, 4)
		if err != nil {
			return 0, err
		}
		return binary.NativeEndian.Uint32(b), nil
	}
	second, err := read(s.pair.Start + pageSize)
	if err != nil {
		return err
	}
	first, err := read(s.pair.Start)
	if err != nil {
		return err
	}
	if first < second || first > second+1 {
		return fmt.Errorf("the child has %d in the page that is written first and %d in the other", first, second)
	}
	for p := range racePages {
		b, err := c.load(at(s.always, p), 4)
		if err != nil {
			return fmt.Errorf("the child's page %d: %w", p, err)
		}
		if err := s.belongs(s.always, p, b); err != nil {
			return err
		}
		// What the child writes to private memory is its own.
		if v, _, _ := c.vmaAt(at(s.always, p)); v.private {
			if err := c.store(at(s.always, p), []byte{0xff, 0xff, 0xff, 0xff}); err != nil {
				return err
			}
		}
	}
	return c.checkHost()
}

// countUp writes to the pair, in order (claim 5).
func (s *raceScene) countUp(rng *rand.Rand) error {
	v, err := s.loadUint32(s.pair.Start)
	if err != nil {
		return err
	}
	word := binary.NativeEndian.AppendUint32(nil, v+1)
	for p := range 2 {
		if rng.Intn(4) == 0 {
			if _, err := s.CopyOut(s.ctx, at(s.pair, p), word, usermem.IOOpts{}); err != nil {
				return err
			}
		} else if err := s.store(at(s.pair, p), word); err != nil {
			return err
		}
	}
	return nil
}

// mapAround maps and unmaps the pages on both sides, so that vmas merge and split.
func (s *raceScene) mapAround(rng *rand.Rand) error {
	addr := s.around.Start
	if rng.Intn(2) == 0 {
		addr = s.around.End - pageSize
	}
	if rng.Intn(2) == 0 {
		return s.MUnmap(s.ctx, addr, pageSize)
	}
	_, err := s.mmap(pageSize, hostarch.ReadWrite, fixedAt(addr))
	return err
}
