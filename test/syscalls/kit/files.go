package kit

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A Dir is a folder to make files in.
type Dir struct {
	Name string // the kind of file system it is on: "disk" or "tmpfs"
	Path string
}

// Dirs are folders on file systems of different kinds: of the machine, which is a gofer's in a
// sandbox, and in memory. KIT_DIR and KIT_TMPFS name them.
func Dirs() []Dir {
	disk, tmpfs := os.Getenv("KIT_DIR"), os.Getenv("KIT_TMPFS")
	if disk == "" {
		disk = os.TempDir()
	}
	if tmpfs == "" {
		tmpfs = "/dev/shm"
	}
	return []Dir{{"disk", disk}, {"tmpfs", tmpfs}}
}

// EachDir runs a test on every kind of file system.
func EachDir(t *testing.T, test func(t *testing.T, d Dir)) {
	for _, d := range Dirs() {
		t.Run(d.Name, func(t *testing.T) { test(t, d) })
	}
}

// PageByte is what every byte of a file's page holds before anybody writes to it.
func PageByte(page int) byte { return 'A' + byte(page%26) }

// File is a new file of so many pages in the first of Dirs, without a name: open for reading and writing
// until the test ends. The bytes of page i are PageByte(i).
func File(t testing.TB, pages int) int {
	t.Helper()
	return Dirs()[0].File(t, pages)
}

// File is a new file of so many pages in the folder: see the function.
func (d Dir) File(t testing.TB, pages int) int {
	t.Helper()
	path := d.NamedFile(t, pages)
	fd := Open(t, path, unix.O_RDWR)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return fd
}

// NamedFile is a new file of so many pages in the folder. It is removed after the test.
func (d Dir) NamedFile(t testing.TB, pages int) string {
	t.Helper()
	f, err := os.CreateTemp(d.Path, "kit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	for i := range pages {
		if _, err := f.Write(bytes.Repeat([]byte{PageByte(i)}, PageSize)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// Open opens a file until the test ends.
func Open(t testing.TB, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// Memfd is a memory file of so many pages, with the bytes that File has. It is open until the test ends.
func Memfd(t testing.TB, pages, flags int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("kit", flags)
	if err != nil {
		t.Fatalf("memfd_create: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for i := range pages {
		if _, err := unix.Pwrite(fd, bytes.Repeat([]byte{PageByte(i)}, PageSize), int64(Len(i))); err != nil {
			t.Fatalf("writing to a memfd: %v", err)
		}
	}
	return fd
}

// Pipe is both ends of a pipe: for reading, for writing. They are open until the test ends.
func Pipe(t testing.TB) (r, w int) {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatalf("pipe2: %v", err)
	}
	t.Cleanup(func() { unix.Close(ends[0]); unix.Close(ends[1]) })
	return ends[0], ends[1]
}
