-- Mean absolute error of predicted prices by ticker and day over the last 30 days, and that of the forecast "no change".
-- What happened is the last_price of the same ticker's row whose as_of lies horizon_min later; a forecast that reaches
-- beyond the close has no such row and is left out. Of two runs that forecast the same bar, the later one counts.
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY dt, ticker, as_of ORDER BY produced_at DESC) AS age
    FROM "${database}"."${table}"
    WHERE dt >= CAST(
        CAST(CAST(current_timestamp AT TIME ZONE 'America/New_York' AS date) - INTERVAL '30' DAY AS date) AS varchar
    )
),
kept AS (
    SELECT * FROM numbered WHERE age = 1
)
SELECT
    made.ticker,
    made.dt,
    count(*) AS predictions,
    avg(abs(made.predicted_price - happened.last_price)) AS mean_absolute_error_usd,
    avg(abs(made.last_price - happened.last_price)) AS no_change_error_usd
FROM kept AS made
JOIN kept AS happened
    ON happened.dt = made.dt
    AND happened.ticker = made.ticker
    AND happened.as_of = made.as_of + made.horizon_min * INTERVAL '1' MINUTE
GROUP BY made.ticker, made.dt
ORDER BY made.dt, made.ticker
