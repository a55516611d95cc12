// What a dashboard of a project may have in it, from Grafana's own types, panel by panel.
import type { Dashboard, DashboardLink, DataQuery, FieldConfig, FieldConfigSource, Panel } from "@grafana/schema";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** As it stands in JSON: the value of an enum in place of its member, at any depth. */
type Written<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends number
      ? `${T}` extends `${infer N extends number}`
        ? N
        : T
      : T extends object
        ? { [K in keyof T]: Written<T[K]> }
        : T;

/** Of Prometheus; its queries have no types in @grafana/schema. */
interface Query extends DataQuery {
  datasource: { type: "prometheus"; uid: "prometheus" };
  expr: string;
  legendFormat: string;
  instant?: boolean;
  range?: boolean;
  format?: "time_series" | "table" | "heatmap";
}

/** Grafana takes anything as the value of an override. Each has the type of what it overrides. */
type Property<T, Prefix extends string> = {
  [K in keyof T & string]-?: { id: `${Prefix}${K}`; value: T[K] };
}[keyof T & string];

interface Fields<Custom> {
  defaults: Omit<FieldConfig, "custom"> & { custom?: Custom };
  overrides: {
    matcher: { id: "byName" | "byRegexp"; options: string };
    properties: (Property<Omit<FieldConfig, "custom">, ""> | Property<Custom, "custom.">)[];
  }[];
}

type Transformation =
  | { id: "merge"; options: Record<string, never> }
  | {
      id: "organize";
      options: {
        excludeByName: Record<string, boolean>;
        indexByName: Record<string, number>;
        renameByName: Record<string, string>;
      };
    };

/** A panel has all that says what it shows; what it may have besides depends on its kind. */
type Kind<Type extends string, Options, Custom> = Omit<Panel, "type" | "options" | "fieldConfig" | "targets" | "transformations"> &
  Required<Pick<Panel, "id" | "title" | "description" | "datasource" | "gridPos">> & {
    type: Type;
    options: Options;
    fieldConfig: Fields<Custom>;
    targets: Query[];
    transformations?: Transformation[];
  };

type Shown =
  | Kind<"stat", stat.Options, Record<never, never>>
  | Kind<"state-timeline", timeline.Options, timeline.FieldConfig>
  | Kind<"table", table.Options, table.FieldConfig>
  | Kind<"timeseries", timeseries.Options, timeseries.FieldConfig>;

export type Board = Written<Omit<Dashboard, "panels" | "links"> & { panels: Shown[]; links: DashboardLink[] }>;
