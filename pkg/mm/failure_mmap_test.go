package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims of this file: MMap that is refused before install changes nothing and does
// not call the host; MMap that has to populate and cannot brings everything back;
// and whatever MapFile or Translate fails, no host mapping of an old page is left
// behind.

// refusals are the ways in which MMap can fail before anything happens.
var refusals = []struct {
	name    string
	mods    []mmapMod
	applies func(n newcomer) bool // nil is always
	prepare func(s *scene, n newcomer)
	want    *errors.Error
}{
	{"RLIMIT_AS", nil, nil, func(s *scene, _ newcomer) { s.ctx.limit(limits.AS, 0) }, linuxerr.ENOMEM},
	{
		"RLIMIT_DATA", nil,
		func(n newcomer) bool { return n.name == "anonymous" || n.name == "private" },
		func(s *scene, _ newcomer) {
			// Exceeded already: replacing as much as comes is no growth.
			s.mustMap(pageSize, hostarch.ReadWrite)
			s.as.forget()
			s.ctx.limit(limits.Data, 1)
		}, linuxerr.ENOMEM,
	},
	{"RLIMIT_MEMLOCK of 0", []mmapMod{locked(memmap.MLockEager)}, nil, func(s *scene, _ newcomer) { s.ctx.limit(limits.MemoryLocked, 0) }, linuxerr.EPERM},
	{"RLIMIT_MEMLOCK", []mmapMod{locked(memmap.MLockLazy)}, nil, func(s *scene, _ newcomer) { s.ctx.limit(limits.MemoryLocked, pageSize) }, linuxerr.EAGAIN},
	{"RLIMIT_MEMLOCK and mlockall", nil, nil, func(s *scene, _ newcomer) {
		if err := s.MLockAll(s.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockLazy}); err != nil {
			s.t.Fatal(err)
		}
		s.ctx.limit(limits.MemoryLocked, pageSize)
	}, linuxerr.EAGAIN},
	{
		"AddMapping", nil,
		func(n newcomer) bool { return n.file != nil },
		func(s *scene, n newcomer) {
			f := s.f
			if n.own {
				f = s.g
			}
			f.fail("AddMapping", 1, linuxerr.ENODEV)
		}, linuxerr.ENODEV,
	},
}

func TestFailedFixedMappingKeepsOldPages(t *testing.T) {
	eachScene(t, func(t *testing.T, n newcomer, make func(testing.TB) *scene) {
		for _, r := range refusals {
			if r.applies != nil && !r.applies(n) {
				continue
			}
			t.Run(r.name, func(t *testing.T) {
				s := make(t)
				r.prepare(s, n)
				before := s.captureAll()
				removals := s.f.count("RemoveMapping") + s.g.count("RemoveMapping")
				if err := n.come(s, r.mods...); !linuxerr.Equals(r.want, err) {
					t.Errorf("got %v, want %v", err, r.want)
				}
				s.mustBeAsBefore(before)
				if calls := s.as.history(); len(calls) != 0 {
					t.Errorf("the host was called:\n%s", callString(calls))
				}
				if now := s.f.count("RemoveMapping") + s.g.count("RemoveMapping"); now != removals {
					t.Errorf("%d mappings were deregistered", now-removals)
				}
			})
		}
	})
}

// CAP_IPC_LOCK lifts the one limit and not the others.
func TestFailedLockedMappingWithCapabilityKeepsOldPages(t *testing.T) {
	s := newScene(t, sceneSizes[0])
	s.put(s.all, hostarch.ReadWrite, nil)
	s.stamp()
	s.ctx.allowIPCLock(true)
	s.ctx.limit(limits.MemoryLocked, 0)
	s.ctx.limit(limits.AS, pageSize)
	before := s.captureAll()
	if err := newcomers[0].come(s, locked(memmap.MLockEager)); !linuxerr.Equals(linuxerr.ENOMEM, err) {
		t.Errorf("got %v", err)
	}
	s.mustBeAsBefore(before)
}

// populations are how a mapping can be asked to be populated.
var populations = []struct {
	name string
	mods []mmapMod
}{
	{"default", nil},
	{"populate", []mmapMod{populated}},
	{"commit", []mmapMod{committedNow}},
	{"lock", []mmapMod{locked(memmap.MLockEager)}},
}

// afterwards is what does not depend on how far populating got.
func (s *scene) afterwards() captured {
	return s.capture().only(" vmas", " counters", " registrations")
}

// MMap succeeds though the host fails: whoever touches the pages gets them. Nobody
// must get old ones.
func TestMapOverFailingAtAnyCallLeavesNothingStale(t *testing.T) {
	for _, p := range populations {
		t.Run(p.name, func(t *testing.T) {
			eachScene(t, func(t *testing.T, n newcomer, make func(testing.TB) *scene) {
				var want captured
				t.Run("unharmed", func(t *testing.T) {
					s := make(t)
					if err := n.come(s, p.mods...); err != nil {
						t.Fatal(err)
					}
					want = s.afterwards()
				})
				everyCall(t, true, func(t *testing.T, i int) bool {
					s := make(t)
					hit := failAt(&s.as.hooks, "MapFile", i, linuxerr.ENOSPC)
					if err := n.come(s, p.mods...); err != nil {
						t.Errorf("MMap: %v", err)
					}
					failed := hit()
					s.mustBeSettled()
					mustBeEqual(t, want, s.afterwards())
					s.mustHaveNew(n)
					return failed
				})
			})
		})
	}
}

func TestTranslateFailingAtAnyCallLeavesNothingStale(t *testing.T) {
	for _, p := range populations[1:] {
		t.Run(p.name, func(t *testing.T) {
			eachScene(t, func(t *testing.T, n newcomer, make func(testing.TB) *scene) {
				if n.file == nil {
					return
				}
				everyCall(t, false, func(t *testing.T, i int) bool {
					s := make(t)
					hitF := failAt(&s.f.hooks, "Translate", i, linuxerr.EIO)
					hitG := failAt(&s.g.hooks, "Translate", i, linuxerr.EIO)
					if err := n.come(s, p.mods...); err != nil {
						t.Errorf("MMap: %v", err)
					}
					failed := hitF() != hitG() // one of them is mapped
					s.mustBeSettled()
					s.mustHaveNew(n)
					return failed
				})
			})
		})
	}
}

// The file ends in the middle of the new mapping. What it does not cover must not
// show the old pages.
//
//	old   |------populated-------|
//	file  |--- pages ---|  none
func TestMapOverWithShortFileLeavesNothingStale(t *testing.T) {
	for _, p := range populations[1:] {
		for _, step := range []uint64{0, 2 * pageSize} {
			s := newScene(t, sceneSizes[0])
			s.put(s.all, hostarch.ReadWrite, nil)
			s.g.set.truncate(edge + 6*pageSize)
			s.g.step = step // or several translations at once
			if err := newcomers[3].come(s, p.mods...); err != nil {
				t.Fatalf("%s: %v", p.name, err)
			}
			s.mustBeSettled()
			rest := hostarch.AddrRange{Start: s.ar.Start + 6*pageSize, End: s.ar.End}
			if n := s.as.mappedPages(rest); n != 0 {
				t.Errorf("%s: %#x bytes are mapped where the file has ended", p.name, n)
			}
			if n := s.as.mappedPages(s.ar); n != 6*pageSize {
				t.Errorf("%s: %#x bytes are mapped", p.name, n)
			}
			s.exit()
		}
	}
}

// Translations that do not allow what the mapping does cannot be mapped, so they do
// not cover what was there.
func TestMapOverWithInaccessibleTranslationLeavesNothingStale(t *testing.T) {
	s := newScene(t, sceneSizes[0])
	s.put(s.all, hostarch.ReadWrite, nil)
	s.g.perms = hostarch.Execute
	if err := newcomers[3].come(s, populated); err != nil {
		t.Fatal(err)
	}
	s.mustBeSettled()
	if n := s.as.mappedPages(s.ar); n != 0 {
		t.Errorf("%#x bytes are mapped", n)
	}
	s.mustHaveNew(newcomers[3])
}

// mustHaveNew checks that faults in s.ar find the new mapping's pages: zeroes, or
// the file's.
func (s *scene) mustHaveNew(n newcomer) {
	s.t.Helper()
	last := s.ar.End - pageSize
	for _, addr := range []hostarch.Addr{s.ar.Start, s.ar.Start + s.ar.Length()/2&^(pageSize-1), last} {
		s.mustFault(addr, pageSize, hostarch.Read)
		_, _, page, _ := s.pmaAt(addr)
		got := string(fileBytes(s.t, s.mf, page)[:16])
		want := string(make([]byte, 16))
		f := s.f
		if n.own {
			f = s.g
		}
		if n.file != nil {
			want = string(f.set.read(uint64(addr-s.base), 16))
		}
		if got != want {
			s.t.Errorf("at %#x is %q, want %q", addr, got, want)
		}
	}
	s.check()
}

// elsewhere returns what the host has mapped outside of s.ar.
func (s *scene) elsewhere() captured {
	var c []string
	for _, ar := range []hostarch.AddrRange{{Start: everywhere.Start, End: s.ar.Start}, {Start: s.ar.End, End: everywhere.End}} {
		for _, h := range s.as.mapped(ar) {
			c = append(c, h.AddrRange.String()+" "+h.perms.String()+" "+fileString(s.w, h.file, h.fileRange(h.AddrRange)))
		}
	}
	return captured{"host elsewhere": c}
}

// mustBeBack checks that a required populate that failed has left everything as it
// was, except that the host may have lost mappings of s.ar.
func (s *scene) mustBeBack(before, elsewhere captured) {
	s.t.Helper()
	s.mustBeSettled()
	mustBeEqual(s.t, before.without("host"), s.captureAll().without("host"))
	mustBeEqual(s.t, elsewhere, s.elsewhere())
}

// requiredPopulations are the ways to insist.
var requiredPopulations = [][]mmapMod{{populated, required}, {committedNow, required}}

func TestRequiredPopulateFailingAtAnyCallBringsEverythingBack(t *testing.T) {
	for _, mods := range requiredPopulations {
		eachScene(t, func(t *testing.T, n newcomer, make func(testing.TB) *scene) {
			everyCall(t, false, func(t *testing.T, i int) bool {
				s := make(t)
				before, elsewhere := s.captureAll(), s.elsewhere()
				hit := failAt(&s.as.hooks, "MapFile", i, linuxerr.ENOSPC)
				err := n.come(s, mods...)
				if !hit() {
					if err != nil {
						t.Errorf("MMap, unharmed: %v", err)
					}
					s.mustBeSettled()
					s.mustHaveNew(n)
					return false
				}
				if !linuxerr.Equals(linuxerr.ENOSPC, err) {
					t.Errorf("MMap: %v", err)
				}
				s.mustBeBack(before, elsewhere)
				return true
			})
		})
	}
}

func TestRequiredTranslateFailingAtAnyCallBringsEverythingBack(t *testing.T) {
	for _, mods := range requiredPopulations {
		eachScene(t, func(t *testing.T, n newcomer, make func(testing.TB) *scene) {
			if n.file == nil {
				return
			}
			everyCall(t, false, func(t *testing.T, i int) bool {
				s := make(t)
				before, elsewhere := s.captureAll(), s.elsewhere()
				hitF := failAt(&s.f.hooks, "Translate", i, linuxerr.EIO)
				hitG := failAt(&s.g.hooks, "Translate", i, linuxerr.EIO)
				err := n.come(s, mods...)
				if failed := hitF() != hitG(); !failed {
					return false
				}
				if !linuxerr.Equals(linuxerr.EIO, err) {
					t.Errorf("MMap: %v", err)
				}
				s.mustBeBack(before, elsewhere)
				return true
			})
		})
	}
}

// A required populate that is refused before install is like any other.
func TestRequiredPopulateRefusedByMappableChangesNothing(t *testing.T) {
	eachScene(t, func(t *testing.T, n newcomer, make func(testing.TB) *scene) {
		if n.file == nil {
			return
		}
		s := make(t)
		before := s.captureAll()
		s.f.fail("AddMapping", 1, linuxerr.ENODEV)
		s.g.fail("AddMapping", 1, linuxerr.ENODEV)
		if err := n.come(s, committedNow, required); !linuxerr.Equals(linuxerr.ENODEV, err) {
			t.Errorf("MMap: %v", err)
		}
		s.mustBeAsBefore(before)
	})
}

// A task that is killed while it populates gets EINTR.
func TestRequiredPopulateOfKilledTaskBringsEverythingBack(t *testing.T) {
	s := newScene(t, sceneSizes[1])
	s.put(s.all, hostarch.ReadWrite, sharedFile)
	s.stamp()
	before, elsewhere := s.captureAll(), s.elsewhere()
	s.as.on("MapFile", 2, nil, func(any) error {
		s.ctx.killed.Store(true)
		return nil
	})
	err := newcomers[0].come(s, committedNow, required)
	s.ctx.killed.Store(false)
	if !linuxerr.Equals(linuxerr.EINTR, err) {
		t.Errorf("MMap: %v", err)
	}
	s.mustBeBack(before, elsewhere)
}
