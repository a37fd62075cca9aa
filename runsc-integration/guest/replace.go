package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// A race is writers that replace regions while readers look at them.
type race struct {
	regions []*region

	replacements atomic.Int64
	reads        []atomic.Int64 // by look
	gaps         []atomic.Int64 // by look

	errOnce sync.Once
	err     error // what stopped a writer; written once
}

func newRace(writers int, kinds kinds) (*race, error) {
	r := &race{reads: make([]atomic.Int64, len(looks)), gaps: make([]atomic.Int64, len(looks))}
	for i := range writers {
		region, err := newRegion(uint64(i), kinds)
		if err != nil {
			return nil, err
		}
		r.regions = append(r.regions, region)
	}
	return r, nil
}

// run replaces until each writer has made n replacements, or until stop is closed when n is 0.
// Every reader goes on until the writers are done, and looks at least once at every region, in every way.
func (r *race) run(readers, n int, stop <-chan struct{}) error {
	// More threads at once than there are processors, so that the kernel interrupts them anywhere.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), readers+len(r.regions)))

	written := make(chan struct{})
	var reading, writing sync.WaitGroup
	for range readers {
		reading.Go(func() { r.read(written) })
	}
	for _, region := range r.regions {
		writing.Go(func() { r.write(region, n, stop) })
	}
	writing.Wait()
	close(written)
	reading.Wait()
	if r.err != nil {
		return r.err
	}
	if gaps := r.gapsSeen(); gaps != 0 {
		return fmt.Errorf("%d gaps seen", gaps)
	}
	return nil
}

func (r *race) gapsSeen() (sum int64) {
	for i := range r.gaps {
		sum += r.gaps[i].Load()
	}
	return sum
}

func (r *race) write(region *region, n int, stop <-chan struct{}) {
	for i := 0; n == 0 || i < n; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if err := region.replaceOnce(); err != nil {
			r.errOnce.Do(func() { r.err = err })
			return
		}
		r.replacements.Add(1)
	}
}

func (r *race) read(done <-chan struct{}) {
	for {
		for _, region := range r.regions {
			for i, look := range looks {
				if err := look.at(region); err != nil {
					if r.gaps[i].Add(1) <= 3 { // enough to understand; the count goes on
						fmt.Fprintf(os.Stderr, "gap: %s: %v\n", look.name, err)
					}
				}
				r.reads[i].Add(1)
			}
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func (r *race) report() {
	fmt.Printf("replacements done: %d\n", r.replacements.Load())
	for i, look := range looks {
		fmt.Printf("reads done: %d by %s\n", r.reads[i].Load(), look.name)
	}
	fmt.Printf("gaps seen: %d\n", r.gapsSeen())
}

func replace(writers, readers, n int, kinds kinds) error {
	r, err := newRace(writers, kinds)
	if err != nil {
		return err
	}
	err = r.run(readers, n, nil)
	r.report()
	return err
}

// serve races until SIGUSR1. Its first line says that it has begun, so whoever checkpoints it knows
// that there is something to save: the regions, a page that only the saved memory holds, and threads
// in the middle of mmap.
func serve(writers, readers int, kinds kinds) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)

	r, err := newRace(writers, kinds)
	if err != nil {
		return err
	}
	keep, err := newRegion(uint64(writers), kinds)
	if err != nil {
		return err
	}
	const kept = "kept across"
	copy(keep.mem[pageSize:], kept)

	stop := make(chan struct{})
	go func() {
		fmt.Println("serving")
		<-asked
		close(stop)
	}()
	if err := r.run(readers, 0, stop); err != nil {
		return err
	}
	if got := string(keep.mem[pageSize:][:len(kept)]); got != kept {
		return fmt.Errorf("memory held %q before, now %q", kept, got)
	}
	if r.replacements.Load() == 0 {
		return errors.New("no replacement was made")
	}
	fmt.Println("served, gaps seen: 0")
	return nil
}
