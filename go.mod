module sentrymm

go 1.26.3

require (
	// Latency histograms of the benchmark.
	github.com/HdrHistogram/hdrhistogram-go v1.4.0
	// Which lines of two transcripts differ, in test/syscalls/runner.
	github.com/aymanbagabas/go-udiff v0.4.1
	// Reads BUILD files, in the test that compares them with the Go code.
	github.com/bazelbuild/buildtools v0.0.0-20260904073137-eaa4d125b423
	// Benchmarks of pkg/vmatree only: the yardstick it is measured against.
	github.com/google/btree v1.1.3
	// The table of suites and targets, transcripts side by side, and the progress bar.
	github.com/jedib0t/go-pretty/v6 v6.8.3
	// JUnit reports of the suites.
	github.com/jstemmer/go-junit-report/v2 v2.1.0
	// Assertions in tests.
	github.com/stretchr/testify v1.12.1
	// System calls and constants that the standard library has no names for.
	golang.org/x/sys v0.49.0
	// The benchmark's plots, as SVG.
	gonum.org/v1/plot v0.17.0
	// The sentry, its platforms and runsc: what this project is built around.
	gvisor.dev/gvisor v0.0.0-20260905035102-160fafc42237
)

// What the packages of gVisor that pkg/mm imports need in their turn.
require (
	golang.org/x/exp v0.0.0-20250711185948-6ae5c78190dc // indirect
	golang.org/x/time v0.15.0 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

// What these need in their turn.
require (
	codeberg.org/go-fonts/liberation v0.5.0 // indirect
	codeberg.org/go-latex/latex v0.2.0 // indirect
	codeberg.org/go-pdf/fpdf v0.11.1 // indirect
	git.sr.ht/~sbinet/gg v0.7.0 // indirect
	github.com/ajstarks/svgo v0.0.0-20211024235047-1546f124cd8b // indirect
	github.com/golang/freetype v0.0.0-20170609003504-e2365dfdc4a0 // indirect
	github.com/mattn/go-runewidth v0.0.16 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/image v0.30.0 // indirect
	golang.org/x/term v0.42.0 // indirect
	golang.org/x/text v0.36.0 // indirect
)
