package main

// The guards of telemetry.
func init() {
	a := func(name, old, new, run string) {
		mutants = append(mutants, mutant{name: name, file: "telemetry/plugin.go", old: old, new: new, pkg: "./telemetry", run: run})
	}
	a("traces are exported only where that is asked for", "ctx, autoexport.WithFallbackSpanExporter(\n		func(context.Context) (sdktrace.SpanExporter, error) { return nil, nil }))", "ctx)", "TestNothingIsSentUnlessAskedFor")
	a("metrics are exported only where that is asked for", "ctx, autoexport.WithFallbackMetricReader(\n		func(context.Context) (sdkmetric.Reader, error) { return nil, nil }))", "ctx)", "TestNothingIsSentUnlessAskedFor")
	a("what was not sent yet is sent at the end", "		all.Go(func() { errs[i] = shutdown(ctx) })\n", "		_, _ = i, shutdown\n", "TestWhatWasNotSentYetIsSentByStop")
	a("the operator's name for the service counts", "		resource.WithFromEnv(),\n", "", "TestWhatWasNotSentYetIsSentByStop")
	a("a collector that is away is no failure", "		e.logger.Warn(\"what was traced or measured last is lost\", \"error\", err)\n", "		return err\n", "TestCollectorThatIsAway")
	a("a mistyped variable ends the start", "	if err := errors.Join(e.provideTracers(ctx, described), e.provideMeters(ctx, described)); err != nil {\n", "	if err := errors.Join(e.provideTracers(ctx, described), e.provideMeters(ctx, described)); false {\n", "TestMistakesAreFoundBeforeTheStart")
}
