// How a scene is watched: by loads, by /proc/self/maps, and by system calls that read the region.

package gap

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

const watcherCount = 6

// watchers look at the whole scene once.
var watchers = [watcherCount]func(*scene){
	(*scene).load, (*scene).readMaps, (*scene).write, (*scene).processRead, (*scene).sharedFutex, (*scene).privateFutex,
}

func (s *scene) load() {
	for _, page := range s.watched {
		access := kit.Me.Load64(s.Page(page))
		if access.Faulted() {
			s.report("load from page %d: %s", page, s.Describe(access))
			return
		}
		s.judge("load", page, access.Value)
	}
}

// judge checks a value that was found in a page.
func (s *scene) judge(how string, page int, value uint64) {
	if !s.values[page][value] {
		s.report("%s found %#x in page %d, which never was there", how, value, page)
	}
}

// readMaps reads /proc/self/maps from end to end. It may change between two lines, and Linux may then print
// a line that overlaps the one before, but no page is left out.
//
// Linux since 6.17 reads maps without mmap_lock, and does leave pages out: natively, once in some hundred
// thousand replacements, all lines are missing from one of the middle on. There they have to be in the next look.
func (s *scene) readMaps() {
	missing := s.missingInMaps()
	if missing != "" && withoutMmapLock {
		missing = s.missingInMaps()
	}
	if missing != "" {
		s.report("%s", missing)
	}
}

var withoutMmapLock = func() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 17
}()

// missingInMaps says which page maps leaves out, if it does. Anything else that is wrong it reports.
func (s *scene) missingInMaps() string {
	text, err := readAll("/proc/self/maps")
	if err != nil {
		s.report("reading maps: %v", err)
		return ""
	}
	lines, err := kit.ParseMaps(text)
	if err != nil {
		s.report("%v", err)
		return ""
	}
	covered := make([]bool, s.Pages)
	for _, l := range s.Clip(lines) {
		first, end := int(l.Start-s.Base)/kit.PageSize, int(l.End-s.Base)/kit.PageSize
		offset := int(l.Offset) / kit.PageSize
		for page := first; page < end; page++ {
			covered[page] = true
			seen := line{perms: l.Perms}
			if l.Inode != 0 && !anonymousFile(l) {
				seen.file, seen.offset = true, offset+page-first
			}
			if !s.lines[page][seen] {
				s.report("maps has page %d as %+v (%s), which it never was", page, seen, s.Show(l))
				return ""
			}
		}
	}
	if page := slices.Index(covered, false); page >= 0 {
		return fmt.Sprintf("page %d is missing in maps:\n%s", page, text)
	}
	return ""
}

// anonymousFile reports whether a line is of shared anonymous memory, which has an inode of its own.
func anonymousFile(l kit.Line) bool { return l.Name == "/dev/zero (deleted)" }

func readAll(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var text []byte
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buffer)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return text, err
		}
		text = append(text, buffer[:n]...)
	}
}

// write passes the pages to write(2), into a pipe that has room for them.
func (s *scene) write() {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		s.report("pipe2: %v", err)
		return
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	for _, page := range s.watched {
		r := kit.Me.Write(ends[1], s.Page(page), kit.Len(1))
		if r != (kit.Result{Value: kit.Len(1)}) {
			s.report("write(2) of page %d: %v", page, r)
			return
		}
		copied := make([]byte, kit.PageSize)
		if n, err := unix.Read(ends[0], copied); n != len(copied) {
			s.report("read(2) from a pipe: %d, %v", n, err)
			return
		}
		s.judge("write(2)", page, binary.LittleEndian.Uint64(copied))
	}
}

func (s *scene) processRead() {
	self := unix.Getpid()
	for _, page := range s.watched {
		var word [8]byte
		local := []unix.Iovec{{Base: &word[0], Len: 8}}
		remote := []unix.RemoteIovec{{Base: s.Page(page), Len: 8}}
		n, err := unix.ProcessVMReadv(self, local, remote, 0)
		if n != 8 {
			s.report("process_vm_readv of page %d: %d, %v", page, n, err)
			return
		}
		s.judge("process_vm_readv", page, binary.LittleEndian.Uint64(word[:]))
	}
}

func (s *scene) sharedFutex()  { s.futex(kit.FutexWait) }
func (s *scene) privateFutex() { s.futex(kit.FutexWait | kit.FutexPrivate) }

// futex waits for a value that no page ever holds, so it finds at once that the word is another.
func (s *scene) futex(op int) {
	for _, page := range s.watched {
		if r := kit.Me.Futex(s.Page(page), op, 0x0badbeef); r.Errno != unix.EAGAIN {
			s.report("futex(%d) on page %d: %v", op, page, r)
			return
		}
	}
}
