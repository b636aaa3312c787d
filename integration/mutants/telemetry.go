package main

// The guards of telemetry.
func init() {
	guard := func(dir, pkg string) func(name, file, old, new, run string) {
		return func(name, file, old, new, run string) {
			mutants = append(mutants, mutant{name: "telemetry: " + name, file: dir + file, old: old, new: new, pkg: pkg, run: run})
		}
	}
	p := guard("telemetry/", "./telemetry")
	p("traces are exported only where that is asked for", "providers.go", "ctx, autoexport.WithFallbackSpanExporter(\n		func(context.Context) (sdktrace.SpanExporter, error) { return nil, nil }))", "ctx)", "TestNothingIsSentUnlessAskedFor")
	p("metrics are exported only where that is asked for", "providers.go", "ctx, autoexport.WithFallbackMetricReader(\n		func(context.Context) (sdkmetric.Reader, error) { return nil, nil }))", "ctx)", "TestNothingIsSentUnlessAskedFor")
	p("logs are exported only where that is asked for", "providers.go", "ctx, autoexport.WithFallbackLogExporter(\n		func(context.Context) (sdklog.Exporter, error) { return nil, nil }))", "ctx)", "TestNothingIsSentUnlessAskedFor")
	p("what was not sent yet is sent at the end", "plugin.go", "		all.Go(func() { errs[i] = shutdown(ctx) })\n", "		_, _ = i, shutdown\n", "TestWhatWasNotSentYetIsSentByStop")
	p("the operator's name for the service counts", "providers.go", "		resource.WithFromEnv(),\n", "", "TestWhoSends")
	p("a collector that is away is no failure", "plugin.go", "		e.logger.Warn(\"what was traced, measured or logged last is lost\", \"error\", err)\n", "		return err\n", "TestCollectorThatIsAway")
	p("a mistyped variable ends the start", "plugin.go", "	if err != nil {\n		return errors.Join(err, e.shutdown(ctx))\n	}\n", "", "TestMistakesAreFoundBeforeTheStart")
	p("a collector that is away holds no memory", "providers.go", "sdktrace.WithBatcher(exporter)", "sdktrace.WithBatcher(exporter, sdktrace.WithMaxQueueSize(1<<20))", "TestACollectorThatIsAwayCostsNoMemory")
	p("an outage is said once", "complaints.go", "	c.last = now\n", "	if isNews {\n		c.last = now\n	}\n", "TestAnOutageIsSaidOnce")
	p("a new outage is said again", "complaints.go", "now.Sub(c.last) > patience", "c.last.IsZero()", "TestAnOutageIsSaidOnce")
	p("the level of stderr holds for what is exported", "providers.go", "h.other.Enabled(ctx, level) && ", "", "TestLogsAreInTheirTrace")
	p("a host's name is no label", "providers.go", ", sdkmetric.WithView(requests))", ")", "TestRequestsAreBounded")
	p("a hundred ports are not too many", "providers.go", "		sdkmetric.WithCardinalityLimit(maxSeries), ", "		", "TestManyPorts")
	p("an unread counter holds nothing else back", "observe.go", "		return nil // an error would hold back what all others measured\n", "		return r.err\n", "TestWhatCannotBeReadHoldsNothingElseBack")
	p("the last values are sent", "observe.go", "	if s.last != nil {\n		return *s.last\n	}\n", "", "TestTheLastValuesAreSent")
	p("a port that left is not measured", "observe.go", "; ok { // else it left between the two questions", "; ok || true {", "TestWhatIsMeasured")
	p("the page is fresh", "instruments.go", "Times that the kernel had to drop events.", "Times that events were lost.", "TestThePageIsFresh")
	p("every instrument is made as it is described", "instruments.go", "skipped: f.counter(skipped)", "skipped: f.counter(overruns)", "TestEveryInstrumentIsAsDescribed")
	p("histograms have their buckets", "instruments.go", "		metric.WithExplicitBucketBoundaries(i.Buckets...))\n", "	)\n", "TestEveryInstrumentIsAsDescribed")
	p("a swap's duration names its trace", "instruments.go", "	e.measures.swapDuration.Record(ctx,", "	e.measures.swapDuration.Record(context.Background(),", "TestHistogramsNameTraces")

	p("counters are there before they count", "instruments.go", "	m.begin()\n", "", "TestWhatIsMeasured")
	h := guard("accel/", "./accel")
	h("components are observed before they stop", "run.go", "	s.life.settle(ctx)\n	err := s.life.stop(ctx)\n", "	err := s.life.stop(ctx)\n	s.life.settle(ctx)\n", "TestComponentsAreObservedBeforeTheyStop")
	h("the host's own lines are exported", "run.go", "	s.logger = s.life.logger\n", "", "TestTheStartIsATraceWithItsLog")
	h("the start's line is in its trace", "run.go", "	s.logger.InfoContext(ctx, \"ready\"", "	s.logger.InfoContext(context.Background(), \"ready\"", "TestTheStartIsATraceWithItsLog")
	h("a start that fails is said in its trace", "run.go", "		span.SetStatus(codes.Error, err.Error())\n", "		_ = codes.Error\n", "TestAStartThatFailsIsSaidInItsTrace")
	h("only a trace that is kept is named", "logger.go", "span.IsSampled()", "span.IsValid()", "TestLinesNameTheirTrace")
	h("a logger with attributes names traces too", "logger.go", "	return traceNamer{h.Handler.WithAttrs(attrs)}\n", "	return h.Handler.WithAttrs(attrs)\n", "TestLinesNameTheirTrace")

	f := guard("fdbsync/", "./fdbsync")
	f("nobody looks at a half start", "syncer.go", "	return s.locked(func() error { return s.begin(ctx) })\n", "	return s.begin(ctx)\n", "TestNobodyLooksAtAHalfStart")
	f("a bridge at the start is part of its trace", "syncer.go", "	s.within = context.WithoutCancel(ctx)\n", "	s.within = context.Background()\n", "TestABridgeAtTheStartIsPartOfItsTrace")
	f("the start's trace ends with it", "chronicle.go", "	endSpans(&c.coming)\n	c.within = nil\n", "	endSpans(&c.coming)\n", "TestABridgeAtTheStartIsPartOfItsTrace")
	f("a resync lasts until all is verified", "syncer.go", "		if !m.synced {\n			return\n		}\n		entries", "		entries", "TestAResyncIsATrace")
	f("one resync is one trace", "syncer.go", "	if s.resyncing != nil || s.tracer == nil {\n", "	if s.tracer == nil {\n", "TestAResyncIsATrace")
	f("why a bridge is not eligible is told at once", "chronicle.go", "	left.End()\n", "	defer left.SetName(\"\")\n", "TestWhyABridgeWasNotEligible")
	f("a switch is part of the request's trace", "syncer.go", "	defer m.chronicle.in(ctx)()\n", "	_ = ctx\n", "TestWhyABridgeWasNotEligible")
	f("a bridge that is gone is told of", "mirror.go", "m.logger.InfoContext(m.chronicle.leaves(accel.Absent), \"the bridge is gone\")", "m.logger.Info(\"the bridge is gone\")", "TestABridgeThatGoesIsTold")
	f("a refreshed entry is not measured", "mirror.go", "isClaimed && (changed || !known)", "changed || !known || isClaimed", "TestWhatIsMeasured")
	f("an entry that went is waited for no more", "mirror.go", "	delete(m.awaits, k)\n	defer", "	defer", "TestWhatIsMeasured")

	n := guard("nicswap/", "./nicswap")
	n("a failover is no part of the start's trace", "plugin.go", "context.WithCancelCause(context.Background())", "context.WithCancelCause(context.WithoutCancel(ctx))", "TestAFailoverIsATrace")
	n("a phase that failed is measured as that", "meters.go", "		result = resultFailed\n", "		_ = resultFailed\n", "TestSwapsAreMeasured")
	n("the frames that found no member are measured", "meters.go", "v.Dropped[accel.NoMember.String()]", "v.Dropped[accel.Standby.String()]", "TestSwapsAreMeasured")
	n("groups are in the order of their names", "engine.go", "	slices.SortFunc(states, func(a, b accel.GroupState) int { return strings.Compare(a.Name, b.Name) })\n", "", "TestGroupsAsTheyAreMeasured")
}
