-- Mean absolute error of predicted prices by ticker, day and horizon over the last 30 days, that of the forecast
-- "no change", and the share of prices within p10 and p90, which is to be 80 %. What happened is the last_price of the same
-- ticker's rows whose as_of lies horizon_min later; a forecast that reaches beyond the close has no such row and is left
-- out. Of two runs that forecast the same bar, the later one counts.
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY dt, ticker, as_of, horizon_min ORDER BY produced_at DESC) AS age
    FROM "${database}"."${table}"
    WHERE dt >= CAST(
        CAST(CAST(current_timestamp AT TIME ZONE 'America/New_York' AS date) - INTERVAL '30' DAY AS date) AS varchar
    )
),
kept AS (
    SELECT * FROM numbered WHERE age = 1
),
happened AS (
    SELECT dt, ticker, as_of, max(last_price) AS price FROM kept GROUP BY dt, ticker, as_of
)
SELECT
    made.ticker,
    made.dt,
    made.horizon_min,
    count(*) AS predictions,
    avg(abs(made.predicted_price - happened.price)) AS mean_absolute_error_usd,
    avg(abs(made.last_price - happened.price)) AS no_change_error_usd,
    avg(
        CASE
            WHEN happened.price BETWEEN made.price_p10 AND made.price_p90 THEN 1.0
            WHEN made.price_p10 IS NOT NULL THEN 0.0
        END
    ) AS share_within
FROM kept AS made
JOIN happened
    ON happened.dt = made.dt
    AND happened.ticker = made.ticker
    AND happened.as_of = made.as_of + made.horizon_min * INTERVAL '1' MINUTE
GROUP BY made.ticker, made.dt, made.horizon_min
ORDER BY made.dt, made.ticker, made.horizon_min
