// Types that several modules of the dashboard use. Only the type check reads this file; it is not served.
//
// Types that the API's OpenAPI document describes come from there (each run of scripts/check_dashboard.py writes
// `tidal-api` from it). Written by hand are only the events of streams, the results that the document describes as
// free-form objects, and the types of values that modules pass to each other.
import type { ComponentChildren, VNode } from "preact";
import type uPlot from "uplot";
import type { components, paths } from "tidal-api";
import type { SeriesStore } from "../static/js/charts/series.js";

type Schemas = components["schemas"];
/** The same type without optional fields: the API never omits a field of a reply. */
type Complete<T> = T extends object ? { [K in keyof T]-?: Complete<T[K]> } : T;
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
/** `/api/jobs/{job_id}` as the template `api/jobs/${string}`. */
type Filled<P> = P extends `${infer Before}{${string}}${infer After}` ? `${Before}${string}${Filled<After>}` : P;
type Template<P> = P extends `/${infer Rest}` ? Filled<Rest> : never;
type WithoutQuery<P> = P extends `${infer Path}?${string}` ? Path : P;
/** The path in the document that matches the path of a request. */
type PathOf<P> = P extends unknown
  ? { [K in keyof paths]: Same<WithoutQuery<P>, Template<K>> extends true ? K : never }[keyof paths]
  : never;
type Content<R> = R extends { content: { "application/json": infer T } } ? T : null;
type Success<O> = O extends { responses: infer R }
  ? { [S in keyof R & (200 | 201)]: Content<R[S]> }[keyof R & (200 | 201)]
  : never;

declare global {
  namespace Api {
    type Method = "get" | "post" | "patch" | "put" | "delete";
    /** `never` for a path that the document lacks for this method, so that the call is an error. */
    type Known<P, M extends Method> = [PathOf<P>] extends [never]
      ? never
      : Same<paths[PathOf<P>][M], undefined> extends true
        ? never
        : unknown;
    type Reply<P, M extends Method = "get"> = [PathOf<P>] extends [never]
      ? unknown
      : Complete<Success<paths[PathOf<P>][M]>>;
    type Body<P, M extends Method> = [PathOf<P>] extends [never]
      ? unknown
      : NonNullable<paths[PathOf<P>][M]> extends { requestBody?: { content: { "application/json": infer T } } }
        ? T
        : undefined;

    type ExperimentPath = `api/experiments/${string}`;
    type ReportPath = `api/reports/${string}`;

    /** An analysis; the document describes its results as free-form objects. */
    type Analysis = Complete<Omit<Schemas["AnalysisResult"], "trajectories" | "batchAnalysis" | "sweepAnalysis">> & {
      trajectories: Trajectory[];
      batchAnalysis: BatchAnalysis | null;
      sweepAnalysis: SweepAnalysis | null;
    };
    type Trajectory = Complete<Omit<Schemas["PromptTrajectory"], "analysis">> & { analysis: PromptAnalysis };
    type Checkpoint = Complete<Schemas["CheckpointReply"]>;
    type CheckpointGroup = Complete<Schemas["CheckpointGroup"]>;
    type Config = Complete<Schemas["ConfigReply"]>;
    type ConfigFile = Complete<Schemas["ConfigFile"]>;
    type Dataset = Complete<Schemas["DatasetReply"]>;
    type DatasetUploaded = Complete<Schemas["DatasetUploaded"]>;
    type CheckpointPath = `api/experiments/${string}/checkpoints/${string}`;
    type DatasetPath = `api/datasets/${string}`;

    type Experiment = Complete<Schemas["ExperimentDetail"]>;
    type ExperimentRow = Complete<Schemas["ExperimentReply"]>;
    type Finding = Complete<Schemas["Finding"]>;
    /** The document describes the tokens as free-form objects. */
    type Generated = Complete<Schemas["GenerateReply"]> & { trajectory?: Token[] };
    type Job = Complete<Schemas["JobDetail"]>;
    type JobRow = Complete<Schemas["JobReply"]>;
    type JobRequest = Schemas["JobRequest"];
    type JobPrediction = Complete<Schemas["JobPrediction"]>;
    type JobType = Schemas["JobType"];
    type CheckpointMode = Schemas["CheckpointMode"];
    type MachinePrediction = Complete<Schemas["MachinePrediction"]>;
    type TrainingPrediction = Complete<Schemas["TrainingPrediction"]>;
    type LogLine = Complete<Schemas["LogLine"]>;
    type Metrics = Complete<Schemas["MetricsReply"]>;
    type ReportTemplate = Schemas["PatternReply"]["name"];
    type Progress = Complete<Schemas["JobProgress"]>;
    type Queue = Complete<Schemas["QueueReply"]>;
    type Report = Complete<Schemas["ReportReply"]>;
    type ReportPart = Complete<Schemas["ReportPart"]>;
    type ReportRow = Complete<Schemas["ReportSummary"]>;
    type Session = Complete<Schemas["Session"]>;
    type Signal = Schemas["Signal"];
    type Storage = Complete<Schemas["Storage"]>;
    type Vocabulary = Complete<Schemas["VocabularyReply"]>;
    /** A problem document. An answer of another program, such as a proxy, may lack any field. */
    type ProblemBody = Partial<Complete<Schemas["Problem"]>> & { retryAfter?: number };

    /** The two kinds of metrics, which name paths, events and series. */
    type Kind = "metrics" | "rl-metrics";
    /** The live status of a trainer: its progress, and the disk while it waits for free space on one. */
    type LiveProgress = Progress & { disk?: { freeBytes: number; neededBytes: number; reason: string } | null };
    interface MetricPoints {
      points: { step: number; attempt: number; values: Record<string, number | null> }[];
    }
    interface Rewind {
      kind?: Kind;
      attempt: number;
      step: number;
    }
    /** The events of the streams by name, with their data. */
    interface StreamEvents {
      metrics: MetricPoints;
      "rl-metrics": MetricPoints;
      rewind: Rewind;
      status: Partial<LiveProgress>;
      "job-update": JobRow;
      checkpoint: unknown;
      "log-lines": unknown;
      reset: unknown;
    }
    type StreamEvent = { [N in keyof StreamEvents]: [name: N, data: StreamEvents[N]] }[keyof StreamEvents];
    type OnEvent = (...event: StreamEvent) => unknown;

    /** The data of a token, as the generator sends it. */
    type Token = {
      text: string;
      modulation: number | null;
      temperature: number;
      topK: number | null;
      topP: number;
      repetitionPenalty: number;
      logProb: number;
      entropy: number;
      samplingEntropy: number;
    };
    interface AnalysisProgress {
      texts: number;
      textsTotal: number;
      tokens: number;
      mostTokens: number;
    }

    /** Handlers for the events of a streamed answer, by the name of the event. */
    interface AnswerHandlers {
      token?: (token: Token) => void;
      progress?: (progress: AnalysisProgress) => void;
    }

    /** A mean with its 95 % interval, as an ablation writes it. */
    interface Interval {
      mean: number;
      ci_low: number;
      ci_high: number;
    }
    interface AblationRow {
      total?: Interval;
      modulation?: Interval;
      length?: Interval;
      components?: Record<string, Interval>;
      verdict?: string;
    }
    interface Ablation {
      policies?: Record<string, AblationRow>;
      paired?: Record<string, AblationRow>;
      conclusion?: string;
      best_constant?: { modulation: number; grid: { modulation: number; reward: number }[] };
      behaviour?: {
        mean: number;
        std_within: number;
        std_between: number;
        entropy_share: number | null;
        constant: boolean;
        verdict: string;
      };
      conditions?: { prompts: number; development_prompts?: number; max_length: number; seed: number };
    }
    interface Headroom {
      modulations: number[];
      rewards: number[];
      best_constant: { modulation: number; reward: Interval };
      policies: Record<string, { reward: Interval; gain: Interval; components: Record<string, number> }>;
      headroom: boolean;
      verdict: string;
      advice: string;
      conditions: { documents: number; contexts: number };
    }
    type Quantity = "total" | "modulation" | "length";
    interface Evaluation {
      samples?: { prompt: string; generated: string }[];
      [fact: string]: unknown;
    }

    type Stats = Record<string, number>;
    interface AlignedToken {
      position: number;
      value: number;
      tokenText: string;
    }
    /** The analysis of one prompt, by the name of the signal (the modulation). */
    interface PromptAnalysis {
      signalStats: Record<string, Stats>;
      signalEvolution: Record<string, Stats[]>;
      tokenSignalAlignment: Record<string, { lowTokens: AlignedToken[]; highTokens: AlignedToken[] }>;
      phases: { windowBoundary: string; tStatistic: number }[];
    }
    type Bounds = [low: number, high: number];
    interface BatchAnalysis {
      crossPromptVariance: Record<
        string,
        {
          betweenPromptVar: number;
          withinPromptVar: number;
          confidenceIntervals?: { betweenPromptVar: Bounds; withinPromptVar: Bounds };
        }
      >;
      strategyCharacterization: Record<
        string,
        { globalMean: number; globalStd: number; confidenceIntervals?: { globalMean: Bounds; globalStd: Bounds } }
      >;
    }
    interface SweepAnalysis {
      meanDeltas: Stats;
      prompts: { prompt: string; texts: Record<string, string>; statistics: Record<string, Stats> }[];
    }
    /** The block of a chart in a report. */
    type Chart = { title: string | null } & (
      | { kind: "metrics"; experiments: string[]; metrics: string[]; logScale: boolean }
      | { kind: "ablation"; experiment: string; quantity: string; paired: boolean }
      | { kind: "trajectory"; analysis: string; prompt: number }
      | { kind: "sweep"; analysis: string; measure: string }
    );
    type ChartOf<K extends Chart["kind"]> = Extract<Chart, { kind: K }>;
  }

  namespace Ui {
    type Node = VNode;
    type Children = ComponentChildren;
    /** An event of a control. Its target is one of several elements; most are inputs. */
    type Event = Omit<KeyboardEvent & PointerEvent & DragEvent, "target" | "currentTarget"> & {
      target: HTMLInputElement;
      currentTarget: HTMLElement;
    };
    type Handler = (event: Event) => void;
    /** A value in a template. A function without a type for its parameter handles an event. */
    type Value = {} | null | undefined | Handler;
    type Html = (strings: TemplateStringsArray, ...values: Value[]) => Node;

    interface Store<T> {
      get: () => T;
      set: (next: T | ((old: T) => T)) => void;
      watch: (listener: (value: T) => unknown) => () => void;
    }
    /** An error of a request or a page; a `Problem` has the optional fields. */
    interface Failure extends Error {
      status?: number;
      code?: string;
      errors?: Api.Finding[];
      requestId?: string | null;
      retryAfter?: number;
    }
    /** The user who is signed in; `known` is true once the server has answered. */
    type Session = Api.Session & { token: string | null; known: boolean };
    /** A text that is saved automatically, and the state of saving it. */
    interface DraftState {
      title: string;
      markdown: string;
      version: number;
      state: "saved" | "waiting" | "saving" | "conflict" | "offline" | "signed-out" | "refused";
      error: Failure | null;
      stored: Api.Report | null;
      savedAt: string;
    }
    interface Upload {
      file: string;
      name: string;
      sent: number;
      total: number;
      startedAt: number;
      state: "sending" | "checking" | "done" | "failed";
      problem: Failure | null;
      reply: Api.DatasetUploaded | null;
    }
    /** A subscription to a stream, and the id of the event after which it continues. */
    type Sub = [topic: string, since: string | null];
    /** A message of a window to the shared connection: all its subscriptions or, without `subs`, a ping. */
    type ConnectionRequest =
      { address: string; token: string | null; subs: Record<string, Sub> } | { subs?: undefined };
    /** A message of the shared connection to a window. */
    interface ConnectionMessage {
      topic?: string;
      name?: string;
      data?: string;
      id?: string | null;
      online?: boolean;
      refused?: number;
      again?: boolean;
    }
    interface Findings {
      wrong: (name: string) => string | undefined;
      marked: boolean;
      rest: string[];
    }
    interface Loading<T> {
      data: T | null;
      error: Failure | null;
      loading: boolean;
    }
    interface Load<T> extends Loading<T> {
      /** Loads again; a failure is set as `error`. */
      reload: () => void;
      setData: (change: T | ((old: T) => T)) => void;
    }
    /** The result of a loader that has finished. */
    type Data<S> = S extends Load<infer T> ? T : never;
    /** Attributes that connect a control with its label, hint and error. */
    interface FieldProps {
      id: string;
      "aria-describedby": string | undefined;
      "aria-invalid": "true" | undefined;
    }
    interface Option {
      value: string;
      text: string;
    }
    type Flat = Map<string, unknown>;
    /** The settings of one panel of the playground, as the text that was typed. */
    interface Panel {
      checkpoint: string;
      rlCheckpoint: string;
      gatingMode: NonNullable<Schemas["GenerateRequest"]["gatingMode"]>;
      modulation: string | number;
      temperature: string | number;
      topK: string | number;
      topP: string | number;
      repetitionPenalty: string | number;
    }

    interface Series {
      x: number[];
      y: number[];
    }
    /** A line of a chart. A `faint` line is drawn behind the others; a `raw` line is not in the legend. */
    interface Line extends Series {
      label: string;
      legend?: string;
      colour: number;
      faint?: boolean;
      raw?: boolean;
      points?: boolean;
      hidden?: boolean;
    }
    type Band = [high: number, low: number, at: number];
    interface Diverged {
      label: string;
      step: number;
    }
    interface Range {
      min: number;
      max: number;
    }
    type Zoom = Store<Range | null>;
    type Plot = uPlot;
    type OnCursor = (index: number | null, plot: uPlot) => void;
    /** A quantity of a chart in the catalogue. */
    interface LineSpec {
      name: string;
      label: string;
      colour: number;
      smooth?: boolean;
      points?: boolean;
      main?: boolean;
      spread?: string;
    }
    interface ChartSpec {
      id: string;
      title: string;
      unit?: string;
      kind: Api.Kind;
      log?: boolean;
      range?: [number, number];
      lines: LineSpec[];
    }
    interface Run {
      store: SeriesStore;
      path: Api.ExperimentPath;
    }
  }
}
