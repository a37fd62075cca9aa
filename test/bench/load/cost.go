package main

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sentrymm/test/bench/sample"
)

// costRows make something and then wait for a line of standard input, while the bench looks at what it
// costs from outside.
func costRows() []row {
	var rows []row
	for _, n := range []int{1, 1000, 60000} {
		rows = append(rows, row{fmt.Sprintf("cost/mappings-%d", n), func(b *bench) {
			p := manyMappings(n)
			b.say(sample.Result{Row: b.row})
			b.wait()
			munmap(p, uintptr(n*page))
		}})
	}
	for _, s := range singles() {
		if s.fewest < 20 {
			continue // too large to do often
		}
		rows = append(rows, row{"hostops/" + s.name, func(b *bench) {
			const often = 256
			o, end := s.begin()
			defer end()
			r := sample.Result{Row: b.row}
			for range 2 { // the first time for warming up
				for range often {
					if o.before != nil {
						o.before()
					}
					o.do()
				}
				b.say(r)
				b.wait()
				r.Ops = often
			}
		}})
	}
	return append(rows, row{"cost/fixed-populate-1g", func(b *bench) {
		p := mapAnon(gib, unix.MAP_POPULATE)
		b.say(sample.Result{Row: b.row})
		b.wait()
		t := time.Now()
		mmap(p, gib, rw, anon|unix.MAP_FIXED|unix.MAP_POPULATE, -1, 0)
		b.say(sample.Result{Row: b.row, Ops: 1, Seconds: time.Since(t).Seconds()})
		b.wait()
		munmap(p, gib)
	}})
}

// wait waits for a line of standard input, or its end.
func (b *bench) wait() {
	bufio.NewReaderSize(os.Stdin, 16).ReadString('\n')
}
