# Build the program.
build:
    go build -o shunt .

# Run every test; needs root.
test:
    ./run-tests

# Make the Debian package, in dist/.
package *flags:
    go run ./packaging/deb {{flags}}

# Install, hang, upgrade and remove the package on Debian 13 and 12, in QEMU.
test-package *flags:
    go run ./integration/packagetest -kernel 6.12 {{flags}}
    go run ./integration/packagetest -kernel 6.1 {{flags}}

# Run the commands of docs/install.md on a clean Debian 13 in QEMU, up to what a real
# Prometheus and Jaeger show; what test-jaeger builds is copied there.
test-install *flags: test-jaeger
    go run ./integration/packagetest -doc docs/install.md -download prometheus \
        -copy ~/.cache/shunt/jaeger-1.76.0:/usr/local/bin/jaeger {{flags}}

# Rebuild the BPF objects with the pinned clang, and what Go generates.
generate:
    go generate ./tcprog ./telemetry

# Show shunt at work in namespaces of its own; needs root.
demo:
    go run . demo

# Compare the bridge without and with shunt on this kernel; needs root.
bench *flags:
    go run . bench {{flags}}

# Look for mistakes without running anything.
vet:
    test -z "$(gofmt -l .)"
    go vet ./...
    go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

# Run the integration tests on Debian's 6.1 and 6.12, in QEMU: those that do not hang on
# how fast the machine is.
test-vm *flags: (test-kernel "6.1" flags) (test-kernel "6.12" flags)

# Run them on one of the kernels.
test-kernel kernel *flags:
    go run ./integration/vm -kernel {{kernel}} -timeout 60m -- -test.v -test.timeout 58m \
        -test.run 'TestTrap|Revocation|DeadDaemon|Detach|Off|FullMap|BridgeMay|Tagged|TestTwin$|UpgradeInTheVM|AdoptOn' \
        -test.skip 'StationsInUse|Trap23|Trap27|Trap28' -twin.vlan -twin.changes 100 -twin.frames 20000 {{flags}}

# Run the kernel's own bridge tests in QEMU, without and with shunt.
selftests *flags:
    go run ./integration/selftests -kernel 6.1 -compare {{flags}}
    go run ./integration/selftests -kernel 6.12 -compare {{flags}}

# Count the instructions of a frame's way on Debian's 6.1 and 6.12, in QEMU, and write
# docs/performance.md; "just bench-vm -rows all" takes the slow rows too.
bench-vm *flags:
    go run ./integration/benchvm -kernel 6.12 -write {{flags}}
    go run ./integration/benchvm -kernel 6.1 -write {{flags}}

# Break every guard on purpose, one at a time, and see its test fail; needs root.
mutants *pattern:
    go run ./integration/mutants {{pattern}}

# Compare the bridge with and without shunt for as long as asked; needs root.
soak duration="10m" *flags:
    go test -run 'TestTwin$' -timeout 0 -count 1 -v ./integration -twin.for {{duration}} {{flags}}

# Swap an uplink, and read the traces back from Jaeger, which is built once (about 10
# minutes); needs root.
test-jaeger:
    go run ./integration/backends jaeger

# Have a shunt scraped by a real Prometheus, and try the dashboard and the rules; needs
# root.
test-prometheus:
    go run ./integration/backends prometheus

# What is run before a change is taken.
ci:
    bash .ci/run
