// Flags, protections and descriptors of mmap that contradict each other, alone and in pairs.
package matrix

import (
	"testing"

	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestMmapFlags(t *testing.T) {
	s := newScene(t)
	const fixed = unix.MAP_FIXED
	for _, kind := range []struct {
		name  string
		flags int
		fd    func(*scene) int
	}{
		{"private", anonymous, none},
		{"shared", unix.MAP_SHARED | unix.MAP_ANONYMOUS, none},
		{"private-file", unix.MAP_PRIVATE, file},
		{"shared-file", unix.MAP_SHARED, file},
		{"validated-file", unix.MAP_SHARED_VALIDATE, file},
		{"validated", unix.MAP_SHARED_VALIDATE | unix.MAP_ANONYMOUS, none},
		{"neither", unix.MAP_ANONYMOUS, none},
		{"neither-file", 0, file},
		{"droppable", 8 | unix.MAP_ANONYMOUS, none}, // MAP_DROPPABLE, of Linux 6.11
		{"other-type", 4 | unix.MAP_ANONYMOUS, none},
	} {
		t.Run(kind.name, func(t *testing.T) {
			for _, more := range []struct {
				name  string
				flags int
			}{
				{"plain", 0},
				{"grows-down", unix.MAP_GROWSDOWN},
				{"locked", unix.MAP_LOCKED},
				{"populate", unix.MAP_POPULATE},
				{"nonblock", unix.MAP_NONBLOCK},
				{"noreserve", unix.MAP_NORESERVE},
				{"stack", unix.MAP_STACK},
				{"denywrite", unix.MAP_DENYWRITE},
				{"executable", unix.MAP_EXECUTABLE},
				{"noreplace", noReplace},
				{"unknown", 1 << 30},
			} {
				s.mapAt(t, more.name, mapping(kit.RW, kind.flags|fixed|more.flags, kind.fd, 0))
			}
		})
	}
}

// mapAt is a test of an mmap of two pages at a hole and over pages of two mappings.
func (s *scene) mapAt(t *testing.T, name string, args func(*scene, uintptr, uintptr) []uintptr) {
	t.Run(name, func(t *testing.T) {
		s.in(t)
		f := form{nr: unix.SYS_MMAP, args: args, places: true}
		kit.Say(t, "hole=%s over=%s", s.try(f, s.a.Page(9), 2*P), s.try(f, s.a.Page(3), 2*P))
	})
}

func TestMmapDescriptors(t *testing.T) {
	s := newScene(t)
	for _, d := range []struct {
		name string
		fd   func(*scene) int
	}{
		{"none", none},
		{"closed", func(*scene) int { return 1 << 20 }},
		{"read-only", readOnly},
		{"write-only", func(s *scene) int { return s.writeOnly }},
		{"folder", func(s *scene) int { return s.dir }},
		{"pipe", func(s *scene) int { return s.pipe }},
	} {
		t.Run(d.name, func(t *testing.T) {
			for _, prot := range []struct {
				name  string
				value int
			}{{"none", 0}, {"read", unix.PROT_READ}, {"write", kit.RW}} {
				s.mapAt(t, "private-"+prot.name, mapping(prot.value, unix.MAP_PRIVATE|unix.MAP_FIXED, d.fd, 0))
				s.mapAt(t, "shared-"+prot.name, mapping(prot.value, unix.MAP_SHARED|unix.MAP_FIXED, d.fd, 0))
			}
		})
	}
}

func TestMmapProtections(t *testing.T) {
	s := newScene(t)
	for _, prot := range []struct {
		name  string
		value int
	}{
		{"write-only", unix.PROT_WRITE},
		{"exec-only", unix.PROT_EXEC},
		{"all", kit.RW | unix.PROT_EXEC},
		{"grows-down", kit.RW | growsDown},
		{"grows-up", kit.RW | growsUp},
		{"unknown", kit.RW | 1<<20},
	} {
		s.mapAt(t, prot.name+"-private", mapping(prot.value, anonymous|unix.MAP_FIXED, none, 0))
		s.mapAt(t, prot.name+"-file", mapping(prot.value, unix.MAP_SHARED|unix.MAP_FIXED, file, 0))
	}
}

func TestMmapOffsets(t *testing.T) {
	s := newScene(t)
	for _, c := range []struct {
		name   string
		offset uintptr
	}{
		{"odd", 1}, {"half-page", P / 2}, {"beyond-the-end", 100 * P}, {"last", 1<<63 - 4*P}, {"at-2^63", 1<<63 - 2*P},
		{"over-2^63", 1 << 63}, {"wraps", -P},
	} {
		s.mapAt(t, c.name+"-anonymous", mapping(kit.RW, anonymous|unix.MAP_FIXED, none, c.offset))
		s.mapAt(t, c.name+"-private", mapping(kit.RW, unix.MAP_PRIVATE|unix.MAP_FIXED, file, c.offset))
		s.mapAt(t, c.name+"-shared", mapping(kit.RW, unix.MAP_SHARED|unix.MAP_FIXED, file, c.offset))
	}
}
