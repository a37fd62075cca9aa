module sentrymm

go 1.26.3

require (
	// Benchmarks of pkg/vmatree only: the yardstick it is measured against.
	github.com/google/btree v1.1.3
	// Assertions in tests.
	github.com/stretchr/testify v1.12.1
	// System calls and constants that the standard library has no names for.
	golang.org/x/sys v0.49.0
	// The sentry, its platforms and runsc: what this project is built around.
	gvisor.dev/gvisor v0.0.0-20260905035102-160fafc42237
)

// What the packages of gVisor that pkg/mm imports need in their turn.
require (
	golang.org/x/exp v0.0.0-20250711185948-6ae5c78190dc // indirect
	golang.org/x/time v0.15.0 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
